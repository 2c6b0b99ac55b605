//! Keeps the daemon small: it runs for months, and a kernel unpacked once must not stay in memory.
//!
//! glibc's allocator keeps what was freed, one arena per thread (mallopt(3), malloc_trim(3)). Not
//! here: any accounting; this only hands back what nobody uses.

use nix::libc;

/// One arena for all threads, and whatever is larger than this mapped by itself, so that freeing it
/// frees it. Called once, before there are threads.
#[allow(unsafe_code, reason = "mallopt is a C function")]
pub fn keep_lean() {
    const MAP_FROM_BYTES: libc::c_int = 128 << 10;
    // SAFETY: both only set the allocator's own parameters.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAP_FROM_BYTES);
    }
}

/// Returns free memory to the system; some milliseconds, so only after something large.
#[allow(unsafe_code, reason = "malloc_trim is a C function")]
pub fn give_back() {
    // SAFETY: it touches nothing but the allocator's free lists, under their locks.
    unsafe {
        libc::malloc_trim(0);
    }
}
