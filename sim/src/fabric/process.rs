//! Processes: the programs under test, as madsim tasks beside the fabric.
//!
//! After each event the fabric lets every woken process run until it waits again, before time moves.
//! So at most one thing happens at a time, and the executor's random choice of the next task can
//! never matter: a run depends on the plan alone.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

/// How many processes have been woken and have not yet run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runnable(Arc<AtomicUsize>);

impl Runnable {
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) > 0
    }
}

/// Ends a process for the count of runnable ones, once its tasks were killed.
#[derive(Debug, Clone)]
pub struct Lifeline(Arc<Flag>);

impl Lifeline {
    pub(crate) fn new(runnable: Runnable) -> Lifeline {
        Lifeline(Arc::new(Flag {
            woken: AtomicBool::new(false),
            dead: AtomicBool::new(false),
            runnable,
        }))
    }

    /// The process is dead: it is never waited for again.
    pub fn cut(&self) {
        self.0.dead.store(true, Ordering::Relaxed);
        self.0.rest();
    }

    /// Wraps the process's whole program.
    pub fn follow<F: Future>(&self, program: F) -> Followed<F> {
        self.0.rouse();
        Followed {
            flag: self.0.clone(),
            program: Box::pin(program),
        }
    }
}

#[derive(Debug)]
struct Flag {
    woken: AtomicBool,
    dead: AtomicBool,
    runnable: Runnable,
}

impl Flag {
    fn rouse(&self) {
        if !self.dead.load(Ordering::Relaxed) && !self.woken.swap(true, Ordering::Relaxed) {
            self.runnable.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rest(&self) {
        if self.woken.swap(false, Ordering::Relaxed) {
            self.runnable.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

struct Rouser {
    flag: Arc<Flag>,
    task: Waker,
}

impl Wake for Rouser {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.flag.rouse();
        self.task.wake_by_ref();
    }
}

/// A process's program that tells when it waits.
pub struct Followed<F> {
    flag: Arc<Flag>,
    program: Pin<Box<F>>,
}

impl<F: Future> Future for Followed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.flag.rest();
        let waker = Waker::from(Arc::new(Rouser {
            flag: self.flag.clone(),
            task: context.waker().clone(),
        }));
        self.program.as_mut().poll(&mut Context::from_waker(&waker))
    }
}
