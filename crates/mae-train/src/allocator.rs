//! jemalloc for the whole program, libtorch included.
//!
//! libtorch allocates every tensor of a step anew. glibc gives large ones back to the system at once, which then
//! clears and maps them again page by page; these settings keep them, in huge pages.
//! The price is that memory once used stays with the process.

#![expect(unsafe_code, reason = "a symbol that jemalloc looks for")]

use std::ffi::c_char;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// A constant C string that another language reads through a symbol.
#[repr(transparent)]
struct Settings(*const c_char);

// SAFETY: the pointer is to constant, immortal memory, which any thread may read.
unsafe impl Sync for Settings {}

/// What jemalloc reads before its first allocation.
///
/// Large tensors share the ordinary arenas, freed memory is never given back, and huge pages are asked for.
/// jemalloc's background thread stays off: with nothing to give back it only wakes and sleeps, tens of thousands
/// of times a second, at a tenth of a core.
// SAFETY: jemalloc declares exactly this symbol, `const char *malloc_conf`, for programs to define.
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: Settings = Settings(
    c"oversize_threshold:1,metadata_thp:auto,dirty_decay_ms:-1,muzzy_decay_ms:-1,thp:always"
        .as_ptr(),
);
