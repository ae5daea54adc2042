//! Long copies, away from the request threads.
//!
//! Owns the extra threads on which operations run that must first copy much data up, so that no request for another file
//! waits for them. Must not know what the jobs do. Invariants: at most `THREADS_MAX` extra threads exist; a job is run
//! exactly once, in place when no thread can be had.

use super::counters;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;

/// A write that first has to copy at least this many bytes leaves its request thread. Below it, copying takes about as long
/// as starting a thread and waking the caller.
pub(super) const LONG_COPY_BYTES: u64 = 1 << 20;

/// Extra threads at one time, per mount. The layers' disk is busy long before.
const THREADS_MAX: usize = 16;

/// The extra threads of one mount.
#[derive(Clone, Default)]
pub(super) struct Offload {
    running: Arc<(Mutex<usize>, Condvar)>,
}

/// One place among the running threads, given back when dropped, even by a panic.
struct Place {
    running: Arc<(Mutex<usize>, Condvar)>,
}

impl Offload {
    /// Runs `job` on an extra thread, or here when all are taken.
    pub(super) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let Some(place) = self.place() else { return job() };
        let job = counters::carried(job);
        // Kept aside so that a failed start does not lose the job together with its reply.
        let parked = Arc::new(Mutex::new(Some(job)));
        let taken = Arc::clone(&parked);
        let started = std::thread::Builder::new().name("copy-up".to_owned()).spawn(move || {
            let _place = place;
            let job = taken.lock().take();
            if let Some(job) = job {
                job();
            }
        });
        if let Err(error) = started {
            log::warn!("a long copy runs on a request thread: no thread could be started: {error}");
            let job = parked.lock().take();
            if let Some(job) = job {
                job();
            }
        }
    }

    /// Returns when no job is running.
    pub(super) fn wait(&self) {
        let (running, changed) = &*self.running;
        let mut running = running.lock();
        while *running > 0 {
            changed.wait(&mut running);
        }
    }

    fn place(&self) -> Option<Place> {
        let mut running = self.running.0.lock();
        if *running >= THREADS_MAX {
            return None;
        }
        *running += 1;
        Some(Place { running: Arc::clone(&self.running) })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (running, changed) = &*self.running;
        *running.lock() -= 1;
        changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    #[test]
    fn jobs_beyond_the_bound_run_in_place() {
        let offload = Offload::default();
        let (release, released) = mpsc::channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for _ in 0..THREADS_MAX {
            let released = Arc::clone(&released);
            offload.run(move || released.lock().recv().unwrap());
        }
        let here = std::thread::current().id();
        let (sender, receiver) = mpsc::channel();
        offload.run(move || sender.send(std::thread::current().id()).unwrap());
        assert_eq!(receiver.recv().unwrap(), here);
        for _ in 0..THREADS_MAX {
            release.send(()).unwrap();
        }
        offload.wait();
    }

    #[test]
    fn wait_returns_after_every_job() {
        let offload = Offload::default();
        let done = Arc::new(AtomicUsize::new(0));
        for _ in 0..100 {
            let done = Arc::clone(&done);
            offload.run(move || {
                done.fetch_add(1, Ordering::SeqCst);
            });
        }
        offload.wait();
        assert_eq!(done.load(Ordering::SeqCst), 100);
    }
}
