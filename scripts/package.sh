#!/usr/bin/env bash
# Builds a Debian package of this checkout and prints its path.
#
#   scripts/package.sh [--out DIR] [--programs DIR] [--version VERSION]
#
# It lies in DIR (default target/package). Programs that are built already are taken from DIR. Needs
# dpkg-deb, which is part of every Debian, and nothing else to pack.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

out=${CARGO_TARGET_DIR:-$PWD/target}/package programs='' version=''
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "$1 needs a value; usage: $0 [--out DIR] [--programs DIR] [--version VERSION]"
    case $1 in
    --out) out=$(realpath -m "$2") ;;
    --programs) programs=$(realpath -e "$2") ;;
    --version) version=$2 ;;
    *) die "unknown: $1; usage: $0 [--out DIR] [--programs DIR] [--version VERSION]" ;;
    esac
    shift 2
done
command -v dpkg-deb >/dev/null || die "dpkg-deb is not installed: packages are built on Debian and its kin"
if [ -z "$programs" ]; then
    need_packages gcc libc6-dev ca-certificates >&2
    need_cargo
    programs=$(build_release)
fi
version=${version:-$(sed -n '/^\[workspace.package\]/,/^version/ s/^version = "\(.*\)"/\1/p' Cargo.toml)}

mkdir -p "$out"
tree=$(mktemp -d "$out/tree.XXXXXX")
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"
install -d "$tree"/{DEBIAN,usr/bin,usr/lib/banger,usr/share/doc/banger}
# As `banger system install --prefix /usr` would put them.
install -m 0755 "$programs/banger" "$tree/usr/bin/"
install -m 0755 "$programs"/{bangerd,banger-helper,banger-agent} "$tree/usr/lib/banger/"
strip --strip-debug "$tree"/usr/bin/banger "$tree"/usr/lib/banger/{bangerd,banger-helper}
install -m 0644 README.md packaging/debian/copyright "$tree/usr/share/doc/banger/"
install -m 0755 packaging/debian/{postinst,prerm,postrm} "$tree/DEBIAN/"
# The newest symbols that are asked of the C library; the agent asks none.
glibc=$(grep -aoh 'GLIBC_2\.[0-9]*' "$tree"/usr/bin/banger "$tree"/usr/lib/banger/{bangerd,banger-helper} \
    | sort -uV | tail -n 1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$(dpkg --print-architecture)/" \
    -e "s/@GLIBC@/${glibc#GLIBC_}/" -e "s/@SIZE@/$(du -sk "$tree/usr" | cut -f1)/" \
    packaging/debian/control > "$tree/DEBIAN/control"
(cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) > "$tree/DEBIAN/md5sums"
package=$out/banger_${version}_$(dpkg --print-architecture).deb
dpkg-deb --root-owner-group --build "$tree" "$package" >/dev/null
echo "$package"
