//! How programs under test reach what lives in the fabric: typed handles to actors, and waiting.

use super::actor::{Actor, Address, Effects, HostId, Micros};
use super::queue::Event;
use super::{Fabric, Timer};
use std::any::Any;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Typed handle to an actor, for the programs that use it.
pub struct Handle<A> {
    pub(super) fabric: Fabric,
    pub(super) address: Address,
    pub(super) kind: PhantomData<fn() -> A>,
}

impl<A> Clone for Handle<A> {
    fn clone(&self) -> Self {
        Handle {
            fabric: self.fabric.clone(),
            address: self.address,
            kind: PhantomData,
        }
    }
}

impl<A: Actor> Handle<A> {
    /// The actor's address.
    #[must_use]
    pub fn address(&self) -> Address {
        self.address
    }

    /// The fabric that it lives in.
    #[must_use]
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Runs `f` on the actor now; its effects are carried out.
    ///
    /// # Panics
    /// If the actor was removed.
    pub fn with<R>(&self, f: impl FnOnce(&mut A, Micros, &mut Effects) -> R) -> R {
        self.fabric
            .lock()
            .call(self.address, |actor, now, fx| {
                f(Self::typed(actor), now, fx)
            })
            .expect("a handle is not used after its actor was removed")
    }

    fn typed(actor: &mut dyn Actor) -> &mut A {
        let actor: &mut dyn Any = actor;
        actor
            .downcast_mut::<A>()
            .expect("a handle is made with its actor's type")
    }

    /// Calls `f` now, and again whenever the actor has called [`Effects::notify`], until it is ready.
    /// `None` when `deadline` passes first. One task at a time may wait on an actor.
    pub async fn wait<R>(
        &self,
        deadline: Micros,
        f: impl FnMut(&mut A, Micros, &mut Effects) -> Poll<R>,
    ) -> Option<R> {
        Wait {
            handle: self,
            deadline,
            scheduled: false,
            f,
        }
        .await
    }

    /// Takes the actor out of the fabric.
    ///
    /// # Panics
    /// If it was removed before.
    #[must_use]
    pub fn take(&self) -> A
    where
        A: Sized,
    {
        let mut inner = self.fabric.lock();
        let actor = inner
            .slot_mut(self.address)
            .actor
            .take()
            .expect("a handle is not used after its actor was removed");
        let actor: Box<dyn Any> = actor;
        *actor
            .downcast::<A>()
            .expect("a handle is made with its actor's type")
    }

    /// Removes the actor: the client instance is gone, without a word to anybody.
    pub fn remove(&self) {
        let mut inner = self.fabric.lock();
        let slot = inner.slot_mut(self.address);
        slot.actor = None;
        slot.waiter = None;
    }
}

struct Wait<'a, A, F> {
    handle: &'a Handle<A>,
    deadline: Micros,
    scheduled: bool,
    f: F,
}

// `f` is never pinned: it is only called through `&mut`.
impl<A, F> Unpin for Wait<'_, A, F> {}

impl<A: Actor, R, F: FnMut(&mut A, Micros, &mut Effects) -> Poll<R>> Future for Wait<'_, A, F> {
    type Output = Option<R>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let this = self.get_mut();
        let address = this.handle.address;
        let inner = &mut *this.handle.fabric.lock();
        let f = &mut this.f;
        let polled = inner.call(address, |actor, now, fx| {
            f(Handle::<A>::typed(actor), now, fx)
        });
        match polled {
            None => return Poll::Pending, // removed: the process is dying
            Some(Poll::Ready(result)) => return Poll::Ready(Some(result)),
            Some(Poll::Pending) if inner.now >= this.deadline => return Poll::Ready(None),
            Some(Poll::Pending) => {}
        }
        inner.slot_mut(address).waiter = Some(context.waker().clone());
        if !this.scheduled && this.deadline != Micros::MAX {
            this.scheduled = true;
            inner.queue.push(this.deadline, Event::Deadline(address));
        }
        Poll::Pending
    }
}

/// See [`Fabric::sleep`].
pub struct Sleep {
    pub(super) fabric: Fabric,
    pub(super) host: HostId,
    pub(super) at: Micros,
    pub(super) timer: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (host, at, known) = (self.host, self.at, self.timer);
        let fabric = self.fabric.clone();
        let inner = &mut *fabric.lock();
        if let Some(id) = known {
            let Some(timer) = inner.timers.get_mut(&id) else {
                return Poll::Pending; // the machine died
            };
            if timer.fired {
                inner.timers.remove(&id);
                self.timer = None;
                return Poll::Ready(());
            }
            timer.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        if inner.now >= at {
            return Poll::Ready(());
        }
        inner.timers_made += 1;
        let id = inner.timers_made;
        inner.timers.insert(
            id,
            Timer {
                host,
                waker: Some(context.waker().clone()),
                fired: false,
            },
        );
        inner.queue.push(at, Event::Timer(id));
        self.timer = Some(id);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(id) = self.timer {
            // Poisoned only when the world is abandoned anyway.
            if let Ok(mut inner) = self.fabric.0.lock() {
                inner.timers.remove(&id);
            }
        }
    }
}
