//! A few threads for many blobs.
//!
//! Invariant: after a failure none is begun, and what was begun has ended when the answer is given.

use crate::image::error::ImageError;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Blobs that are on their way at the same time, from a registry or to it: Docker's number.
const BLOBS_AT_ONCE_MAX: usize = 3;

/// Does the work for each item, given its place too, in order and a few at once. `failed` is told at once, by the thread that
/// fails.
///
/// # Errors
/// The first failure; a panic is one.
pub fn at_once<T: Sync>(
    items: &[T],
    work: impl Fn(usize, &T) -> Result<(), ImageError> + Sync,
    failed: impl Fn() + Sync,
) -> Result<(), ImageError> {
    let (next, failure) = (AtomicUsize::new(0), Mutex::new(None));
    let run = || {
        while failure.lock().is_none() {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return };
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(at, item)));
            if let Err(error) = done.unwrap_or(Err(ImageError::Thread)) {
                failure.lock().get_or_insert(error);
                failed();
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..BLOBS_AT_ONCE_MAX.min(items.len()) {
            scope.spawn(run);
        }
    });
    failure.into_inner().map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn items_are_done_side_by_side() {
        let (together, sum) = (Barrier::new(BLOBS_AT_ONCE_MAX), AtomicUsize::new(0));
        let items = [1; 2 * BLOBS_AT_ONCE_MAX];
        let work = |at, item: &usize| {
            // It never ends where fewer are at work.
            together.wait();
            sum.fetch_add(at * item, Ordering::Relaxed);
            Ok(())
        };
        at_once(&items, work, || ()).expect("nothing fails");
        assert_eq!(sum.into_inner(), (0..items.len()).sum::<usize>());
    }

    #[test]
    fn failure_and_panic_end_it_and_are_told() {
        for panics in [false, true] {
            let (begun, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let work = |_, _: &()| {
                begun.fetch_add(1, Ordering::Relaxed);
                assert!(!panics, "as it should");
                Err(ImageError::Thread)
            };
            let outcome = at_once(&[(); 100], work, || _ = told.fetch_add(1, Ordering::Relaxed));
            assert!(matches!(outcome, Err(ImageError::Thread)));
            let begun = begun.into_inner();
            assert!(begun <= BLOBS_AT_ONCE_MAX && told.into_inner() == begun, "{begun}");
        }
    }
}
