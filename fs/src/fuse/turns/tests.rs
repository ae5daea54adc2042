//! The turns of request threads, on threads that wait on a queue as those of a mount wait on the device.

use super::*;
use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, ThreadId};

const CLIENT: Asker = Asker { pid: 1, data: false };

type Job = (Length, Asker, Box<dyn FnOnce() + Send>);

/// Threads that wait on one queue as those of a mount wait on the device.
struct Crew {
    turns: Arc<Turns>,
    queue: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    fn new(threads: usize) -> Crew {
        let turns = Turns::new(std::fs::File::open("/dev/null").unwrap().into(), threads, 1);
        let (queue, jobs) = channel::<Job>();
        let jobs: Arc<Mutex<Receiver<Job>>> = Arc::new(Mutex::new(jobs));
        let request_thread = || {
            let (turns, jobs) = (Arc::clone(&turns), Arc::clone(&jobs));
            std::thread::spawn(move || {
                loop {
                    let job = jobs.lock().recv();
                    let Ok((length, asker, answer)) = job else { return };
                    turns.take(length, asker, answer);
                }
            })
        };
        let threads = (0..threads).map(|_| request_thread()).collect();
        Crew { turns, queue: Some(queue), threads }
    }

    fn watched(mut self) -> Crew {
        let turns = Arc::clone(&self.turns);
        self.threads.push(std::thread::spawn(move || turns.watch()));
        self
    }

    fn send(&self, length: Length, asker: Asker, answer: impl FnOnce() + Send + 'static) {
        self.queue.as_ref().unwrap().send((length, asker, Box::new(answer))).unwrap();
    }

    /// Asks and waits for the answer: the thread that gave it.
    fn ask(&self, length: Length) -> ThreadId {
        let (answered, answer) = channel();
        self.send(length, CLIENT, move || answered.send(std::thread::current().id()).unwrap());
        answer.recv().unwrap()
    }

    /// Every thread answers a request, and then all but one rest.
    fn settle(&self, threads: usize) {
        let together = Arc::new(Barrier::new(threads));
        for _ in 0..threads {
            let together = Arc::clone(&together);
            self.send(Length::Quick, CLIENT, move || {
                together.wait();
            });
        }
        while self.turns.rest.lock().resting < threads - 1 {
            self.ask(Length::Quick);
        }
    }

    /// The end of the connection; returns when every thread has ended.
    fn end(mut self) {
        self.queue = None;
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn one_client_is_answered_by_one_thread() {
    let crew = Crew::new(4);
    crew.settle(4);
    let askings: HashSet<ThreadId> = (0..100).map(|_| crew.ask(Length::Quick)).collect();
    assert_eq!(askings.len(), 1);
    crew.end();
}

/// A thread that waited all the while and ended without a request once left those that rested behind, and the server alive.
#[test]
fn the_end_reaches_every_thread_however_few_were_asked() {
    for askings in 0..8 {
        let crew = Crew::new(4);
        for _ in 0..askings {
            crew.ask(Length::Quick);
        }
        crew.end();
    }
}

#[test]
fn a_long_operation_leaves_the_queue_to_another_thread() {
    let crew = Crew::new(3);
    crew.settle(3);
    let (release, released) = channel::<()>();
    crew.send(Length::Long, CLIENT, move || released.recv().unwrap());
    crew.ask(Length::Quick);
    release.send(()).unwrap();
    crew.ask(Length::Quick);
    crew.end();
}

#[test]
fn a_quick_operation_that_is_stuck_does_not_stop_the_others() {
    let crew = Crew::new(4).watched();
    crew.settle(4);
    let releases: Vec<Sender<()>> = (0..3)
        .map(|_| {
            let (release, released) = channel::<()>();
            crew.send(Length::Quick, CLIENT, move || released.recv().unwrap());
            release
        })
        .collect();
    // Three of four threads are stuck, or will be as soon as they are called.
    crew.ask(Length::Quick);
    releases.into_iter().for_each(|release| release.send(()).unwrap());
    crew.ask(Length::Quick);
    crew.end();
}

#[test]
fn requests_that_pile_up_call_more_threads() {
    let crew = Crew::new(4);
    crew.settle(4);
    assert_eq!(crew.turns.wanted.load(SeqCst), 1);
    for _ in 0..2 * PRESSURE_SPAN {
        crew.turns.adjust(true);
    }
    assert!(crew.turns.wanted.load(SeqCst) > 1);
    for _ in 0..64 * PRESSURE_SPAN {
        crew.turns.adjust(false);
    }
    assert_eq!(crew.turns.wanted.load(SeqCst), 1);
    crew.end();
}

#[test]
fn long_operations_of_every_thread_at_once_lose_nobody() {
    let crew = Crew::new(4).watched();
    let (answered, answers) = channel();
    for turn in 0..2000 {
        let answered = answered.clone();
        let length = if turn % 3 == 0 { Length::Quick } else { Length::Long };
        crew.send(length, Asker { pid: turn % 5, data: turn % 7 == 0 }, move || answered.send(()).unwrap());
    }
    assert_eq!(answers.iter().take(2000).count(), 2000);
    crew.end();
}

#[test]
fn a_client_that_comes_back_at_once_is_looked_out_for() {
    let mut pace = Pace::default();
    let mut now = Instant::now();
    let mut step = |pace: &mut Pace, gap: Duration, asker: Asker| {
        pace.left(now);
        now += gap;
        pace.arrived(now, asker)
    };
    for _ in 0..SOON_MIN {
        assert!(!pace.looks());
        step(&mut pace, Duration::from_micros(10), CLIENT);
    }
    assert!(pace.looks());
    step(&mut pace, Duration::from_millis(1), CLIENT);
    assert!(!pace.looks(), "it took its time");
    for _ in 0..SOON_MAX {
        step(&mut pace, Duration::from_micros(10), CLIENT);
    }
    pace.looked(Looked::Contended);
    step(&mut pace, Duration::from_millis(1), CLIENT);
    for _ in 0..SOON_MAX {
        step(&mut pace, Duration::from_micros(10), CLIENT);
    }
    assert!(!pace.looks(), "others want the processor");
}

#[test]
fn only_somebody_elses_request_can_have_waited() {
    let mut pace = Pace::default();
    let now = Instant::now();
    let mut at_once = |asker: Asker| {
        pace.left(now);
        pace.arrived(now, asker)
    };
    assert!(at_once(CLIENT), "another one than before");
    assert!(!at_once(CLIENT));
    assert!(at_once(Asker { data: true, ..CLIENT }));
    assert!(at_once(Asker { pid: 2, data: false }));
}
