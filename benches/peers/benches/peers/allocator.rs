//! The system's allocator, which counts once it is asked to: all threads would write the counts to one place, and
//! requests over HTTP wait for each other there.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region};

static COUNTS: AtomicBool = AtomicBool::new(false);

pub(crate) struct Allocator;

/// Counts from now on.
pub(crate) fn count() -> Region<'static, System> {
    COUNTS.store(true, Ordering::Relaxed);
    Region::new(&INSTRUMENTED_SYSTEM)
}

// SAFETY: both are the system's allocator, whose promises hold for what the other one made.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            unsafe { INSTRUMENTED_SYSTEM.alloc(layout) }
        } else {
            unsafe { System.alloc(layout) }
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            unsafe { INSTRUMENTED_SYSTEM.alloc_zeroed(layout) }
        } else {
            unsafe { System.alloc_zeroed(layout) }
        }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if COUNTS.load(Ordering::Relaxed) {
            unsafe { INSTRUMENTED_SYSTEM.realloc(ptr, layout, new_size) }
        } else {
            unsafe { System.realloc(ptr, layout, new_size) }
        }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        if COUNTS.load(Ordering::Relaxed) {
            unsafe { INSTRUMENTED_SYSTEM.dealloc(ptr, layout) }
        } else {
            unsafe { System.dealloc(ptr, layout) }
        }
    }
}
