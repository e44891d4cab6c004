//! Many tasks on all cores, whose results are taken in by the order of the tasks.
//!
//! Comes in: tasks. Goes out: their results, so that what is made of them does not depend on the number of
//! jobs. Never here: what a task is.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

/// Runs the tasks on `jobs` threads. `take` gets each result with its task, in the order of the tasks;
/// `progress` is called after each, in no particular order.
#[allow(
    clippy::disallowed_methods,
    reason = "this is outside of the simulation, and what comes of it does not depend on threads"
)]
pub fn in_order<T: Sync, R: Send>(
    tasks: &[T],
    jobs: NonZeroUsize,
    run: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(&T, R),
    progress: &mut dyn FnMut(),
) {
    let next = AtomicUsize::new(0);
    let (sender, finished) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..jobs.get().min(tasks.len()) {
            let (sender, next, run) = (sender.clone(), &next, &run);
            scope.spawn(move || {
                while let Some((index, task)) = next_of(next, tasks) {
                    if sender.send((index, run(task))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let mut early = BTreeMap::new();
        let mut expected = 0;
        for (index, result) in finished {
            progress();
            early.insert(index, result);
            while let Some(result) = early.remove(&expected) {
                take(&tasks[expected], result);
                expected += 1;
            }
        }
    });
}

fn next_of<'a, T>(next: &AtomicUsize, tasks: &'a [T]) -> Option<(usize, &'a T)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    tasks.get(index).map(|task| (index, task))
}
