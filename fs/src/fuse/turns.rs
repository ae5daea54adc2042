//! Which request threads wait for the kernel, and how.
//!
//! The kernel wakes the threads that wait on its queue in turn, so a single client that asks one thing after the other would
//! meet another thread, on another processor, at every request. Here as few threads as keep up wait for requests; the others
//! rest until they are called: because requests pile up, because an operation takes long, or because nothing has moved for a
//! tick. A thread alone with a client that asks again at once looks for the next request for a moment before it sleeps,
//! which saves waking it on a processor that has gone idle.
//!
//! Owns the request threads between two requests. Must not know what requests do. Invariants: while a thread rests and
//! something is asked, a thread waits for the kernel or will within a tick; whoever rests is called when the connection ends.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use parking_lot::{Condvar, Mutex};
use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Without an answer for so long, another thread is called.
const TICK: Duration = Duration::from_millis(1);

/// Ticks without a request after which nobody watches any more.
const QUIET_TICKS: u32 = 50;

/// How long a thread looks for the next request before it sleeps: a client that only looks files up comes back in 10 us, and
/// in 30 where its processor has gone idle meanwhile.
const LOOK_MAX: Duration = Duration::from_micros(40);

/// A client that comes back so soon, this often in a row, is waited for.
const SOON: Duration = Duration::from_micros(60);
const SOON_MIN: i32 = 4;
const SOON_MAX: i32 = 16;

/// What a look in vain takes off: a client that stays away ends the looking after three.
const IN_VAIN: i32 = 4;

/// Requests for which nobody looks once something else wanted the processor meanwhile.
const CONTENDED_PAUSE: i32 = -256;

/// Between two looks this much time passes only if something else had the processor: half of the scheduler's shortest slice.
const INTERRUPTED: Duration = Duration::from_micros(350);

/// A request that was there so soon after the last answer had been waiting.
const WAITING: Duration = Duration::from_micros(2);

/// The share of requests that had been waiting: a moving mean over some `PRESSURE_SPAN` requests, of `PRESSURE_FULL`.
const PRESSURE_SPAN: u32 = 32;
const PRESSURE_FULL: u32 = 1 << 16;
/// From a quarter on another thread is wanted, below 1/64 one less.
const PRESSURE_HIGH: u32 = PRESSURE_FULL / 4;
const PRESSURE_LOW: u32 = PRESSURE_FULL / 64;
const PRESSURE_START: u32 = PRESSURE_FULL / 16;

/// How an operation uses its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// As a rule it is answered from memory, or by a few system calls.
    Quick,
    /// It waits for a disk as a rule.
    Long,
    /// One of a batch that a thread works off before it waits again.
    Batched,
}

/// Who asks, as far as the turns go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    /// The thread that asks; 0 for the kernel itself.
    pub(super) pid: u32,
    /// It asks for data: the kernel has several of these on the way for one thread.
    pub(super) data: bool,
}

/// The request threads of one mount.
pub(super) struct Turns {
    device: OwnedFd,
    threads: usize,
    looks: bool,
    /// Threads that wait for a request or answer a quick one. Those that have answered none yet are not counted: nothing tells
    /// when they end, so whoever rests relies on one that is.
    active: AtomicUsize,
    /// Of these, the ones that answer.
    busy: AtomicUsize,
    /// How many should be active.
    wanted: AtomicUsize,
    pressure: AtomicU32,
    /// Requests so far.
    begun: AtomicU64,
    watched: AtomicBool,
    rest: Mutex<Rest>,
    called: Condvar,
    watcher: Condvar,
}

#[derive(Default)]
struct Rest {
    resting: usize,
    /// Threads that were called and are still on their way.
    calls: usize,
    ended: bool,
}

/// A request thread's own part; its end is that of the thread, and so of the connection.
struct Seat {
    turns: Arc<Turns>,
    pace: Pace,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.turns.end();
    }
}

thread_local! {
    static SEAT: RefCell<Option<Seat>> = const { RefCell::new(None) };
}

impl Turns {
    /// For so many threads, which read from `device` or from clones of it.
    pub(super) fn new(device: OwnedFd, threads: usize, processors: usize) -> Arc<Turns> {
        Arc::new(Turns {
            device,
            threads,
            looks: processors > 1,
            active: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            wanted: AtomicUsize::new(1),
            pressure: AtomicU32::new(PRESSURE_START),
            begun: AtomicU64::new(0),
            watched: AtomicBool::new(false),
            rest: Mutex::default(),
            called: Condvar::new(),
            watcher: Condvar::new(),
        })
    }

    /// Answers a request on this thread. Returns when it is this thread's turn to wait for the next one.
    pub(super) fn take(self: &Arc<Self>, length: Length, asker: Asker, answer: impl FnOnce()) {
        if length == Length::Batched {
            return answer();
        }
        let waited = SEAT.with_borrow_mut(|seat| {
            let seat = seat.get_or_insert_with(|| self.seat());
            seat.pace.arrived(Instant::now(), asker)
        });
        self.begin(length, waited);
        answer();
        let rested = self.finish(length);
        SEAT.with_borrow_mut(|seat| {
            let Some(seat) = seat else { return };
            if rested {
                seat.pace = Pace::default();
                return;
            }
            let alone = self.looks && self.active.load(Relaxed) == 1;
            if alone && seat.pace.looks() {
                let outcome = self.look();
                seat.pace.looked(outcome);
            }
            seat.pace.left(Instant::now());
        });
    }

    fn seat(self: &Arc<Self>) -> Seat {
        self.active.fetch_add(1, SeqCst);
        Seat { turns: Arc::clone(self), pace: Pace::default() }
    }

    /// Calls a thread when nothing moves; returns when the connection has ended.
    pub(super) fn watch(&self) {
        let (mut seen, mut quiet) = (0, 0);
        let mut rest = self.rest.lock();
        while !rest.ended {
            if !self.watched.load(SeqCst) {
                self.watcher.wait(&mut rest);
                continue;
            }
            self.watcher.wait_for(&mut rest, TICK);
            let begun = self.begun.load(SeqCst);
            if begun != seen {
                (seen, quiet) = (begun, 0);
                continue;
            }
            if self.busy.load(SeqCst) >= self.active.load(SeqCst) {
                self.call(&mut rest);
                continue;
            }
            quiet += 1;
            if quiet >= QUIET_TICKS {
                quiet = 0;
                self.watched.store(false, SeqCst);
                // A request that came in between has seen the watch still up.
                if self.begun.load(SeqCst) != seen {
                    self.watched.store(true, SeqCst);
                }
            }
        }
    }

    fn begin(&self, length: Length, waited: bool) {
        self.begun.fetch_add(1, SeqCst);
        if !self.watched.load(SeqCst) {
            let rest = self.rest.lock();
            self.watched.store(true, SeqCst);
            drop(rest);
            self.watcher.notify_one();
        }
        match length {
            Length::Long => {
                self.active.fetch_sub(1, SeqCst);
                self.call(&mut self.rest.lock());
            }
            _ => {
                self.busy.fetch_add(1, SeqCst);
            }
        }
        if self.threads > 1 {
            self.adjust(waited);
        }
    }

    /// Whether this thread has rested meanwhile.
    fn finish(&self, length: Length) -> bool {
        if length == Length::Long {
            return self.join();
        }
        self.busy.fetch_sub(1, SeqCst);
        let surplus = |active: usize| (active > self.wanted.load(SeqCst)).then(|| active - 1);
        match self.active.fetch_update(SeqCst, SeqCst, surplus) {
            Ok(_) => self.join(),
            Err(_) => false,
        }
    }

    /// Becomes active where one more is wanted, else rests until called.
    fn join(&self) -> bool {
        let mut rest = self.rest.lock();
        // Looked at under the lock: whoever leaves calls under it, and finds this thread resting or is seen here.
        if rest.ended || self.active.load(SeqCst) < self.wanted.load(SeqCst) {
            self.active.fetch_add(1, SeqCst);
            return false;
        }
        rest.resting += 1;
        while rest.calls == 0 && !rest.ended {
            self.called.wait(&mut rest);
        }
        rest.calls = rest.calls.saturating_sub(1);
        rest.resting -= 1;
        true
    }

    /// Calls a thread that rests, where none is left that waits for the kernel or fewer are active than should be.
    fn call(&self, rest: &mut Rest) {
        let active = self.active.load(SeqCst);
        let needed = active < self.wanted.load(SeqCst) || self.busy.load(SeqCst) >= active;
        if needed && rest.resting > rest.calls {
            rest.calls += 1;
            self.active.fetch_add(1, SeqCst);
            self.called.notify_one();
        }
    }

    /// How many threads should be active, by how many requests find all of them busy.
    fn adjust(&self, waited: bool) {
        // Lost updates of other threads only slow it down.
        let before = self.pressure.load(Relaxed);
        let pressure = before - before / PRESSURE_SPAN + if waited { PRESSURE_FULL / PRESSURE_SPAN } else { 0 };
        let wanted = self.wanted.load(Relaxed);
        if pressure > PRESSURE_HIGH && wanted < self.threads {
            self.wanted.store(wanted + 1, SeqCst);
            self.call(&mut self.rest.lock());
            self.pressure.store(PRESSURE_START, Relaxed);
        } else if pressure < PRESSURE_LOW && wanted > 1 {
            self.wanted.store(wanted - 1, SeqCst);
            self.pressure.store(PRESSURE_START, Relaxed);
        } else {
            self.pressure.store(pressure, Relaxed);
        }
    }

    /// Looks for the next request for a moment.
    fn look(&self) -> Looked {
        let mut device = [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)];
        let started = Instant::now();
        let mut last = started;
        let mut interrupted = false;
        loop {
            match poll(&mut device, PollTimeout::ZERO) {
                Ok(0) => {}
                // An error is for the read to tell.
                _ => return Looked::Found,
            }
            let now = Instant::now();
            interrupted |= now - last > INTERRUPTED;
            if now - started > LOOK_MAX {
                return if interrupted { Looked::Contended } else { Looked::Nothing };
            }
            last = now;
        }
    }

    /// The connection has ended: nobody needs to rest.
    fn end(&self) {
        let mut rest = self.rest.lock();
        rest.ended = true;
        self.called.notify_all();
        self.watcher.notify_all();
    }
}

/// What came of looking for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looked {
    Found,
    Nothing,
    /// Nothing, and others wanted the processor.
    Contended,
}

/// How fast one thread's requests follow each other.
#[derive(Default)]
struct Pace {
    left: Option<Instant>,
    asker: u32,
    soon: i32,
}

impl Pace {
    /// A request has come; whether it had been waiting for a thread.
    fn arrived(&mut self, now: Instant, asker: Asker) -> bool {
        let Some(left) = self.left.take() else {
            self.asker = asker.pid;
            return false;
        };
        let gap = now.saturating_duration_since(left);
        match gap <= SOON {
            true => self.soon = (self.soon + 1).min(SOON_MAX),
            false => self.soon = self.soon.min(0),
        }
        // One thread that asks again cannot have waited: it had the processor of this one in between.
        let other = asker.data || asker.pid != self.asker;
        self.asker = asker.pid;
        gap <= WAITING && other
    }

    fn left(&mut self, now: Instant) {
        self.left = Some(now);
    }

    fn looks(&self) -> bool {
        self.soon >= SOON_MIN
    }

    fn looked(&mut self, outcome: Looked) {
        match outcome {
            Looked::Found => {}
            Looked::Nothing => self.soon -= IN_VAIN,
            Looked::Contended => self.soon = CONTENDED_PAUSE,
        }
    }
}

#[cfg(test)]
mod tests;
