# Shared by the scripts beside it. Sourced, never run.

say() { printf '\n\033[1m==> %s\033[0m\n' "$*" | if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Installs Debian packages that are missing; asks apt nothing when none is.
need_packages() {
    local missing=() package
    for package in "$@"; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    [ "$(id -u)" = 0 ] || die "these packages are missing; install them as root: ${missing[*]}"
    say "Installing ${#missing[@]} Debian packages: ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

need_cargo() {
    command -v cargo >/dev/null || [ ! -x "$HOME/.cargo/bin/cargo" ] || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || die "cargo is not installed; Rust 1.95 or newer is needed, see https://rustup.rs"
}

# Builds the three binaries and the static guest agent into the release folder, and prints it.
build_release() {
    local target=${CARGO_TARGET_DIR:-$PWD/target}
    cargo build --release --locked --quiet -p banger --bins
    build_agent
    echo "$target/release"
}

# The agent runs in guests of any distribution, so it links nothing at run time.
build_agent() {
    local target=${CARGO_TARGET_DIR:-$PWD/target} triple
    triple=$(rustc -vV | sed -n 's/^host: //p')
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --locked --quiet -p banger-agent --bin banger-agent \
        --profile agent --target "$triple"
    mkdir -p "$target/release"
    install -m 0755 "$target/$triple/agent/banger-agent" "$target/release/banger-agent"
}

# The package that linux-image-cloud-amd64 stands for, downloaded once into the given folder.
fetch_kernel_deb() {
    local folder=$1 real
    mkdir -p "$folder"
    if ! ls "$folder"/linux-image-*.deb >/dev/null 2>&1; then
        [ -n "$(ls /var/lib/apt/lists/*Packages* 2>/dev/null)" ] || apt-get update -qq
        real=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
        [ -n "$real" ] || die "apt does not know linux-image-cloud-amd64"
        (cd "$folder" && apt-get download -qq "$real" >/dev/null)
    fi
    ls "$folder"/linux-image-*.deb | head -n 1
}

# What guests are made from in tests; made once, found again by content. A caller may have named its own.
need_guests() {
    export BANGER_TEST_CACHE=${BANGER_TEST_CACHE:-$PWD/.cache}
    if [ -z "${BANGER_TEST_AGENT:-}" ]; then
        say "Guest agent"
        build_agent
        export BANGER_TEST_AGENT=${CARGO_TARGET_DIR:-$PWD/target}/release/banger-agent
    fi
    if [ -z "${BANGER_TEST_KERNEL_DEB:-}" ] && [ "$(id -u)" = 0 ]; then
        BANGER_TEST_KERNEL_DEB=$(fetch_kernel_deb "$BANGER_TEST_CACHE/kernel")
        export BANGER_TEST_KERNEL_DEB
    fi
}

# What the test host is built with and runs on.
need_testhost() {
    need_packages gcc libc6-dev qemu-system-x86 qemu-utils e2fsprogs mmdebstrap util-linux ca-certificates busybox-static
    need_cargo
    need_guests
}

# Waits for a condition, not for a time: wait_for SECONDS WHAT COMMAND...
wait_for() {
    local limit=$1 what=$2 end
    shift 2
    end=$((SECONDS + limit))
    until "$@" >/dev/null 2>&1; do
        [ $SECONDS -lt $end ] || die "$what did not happen within $limit s"
        sleep 0.05
    done
}
