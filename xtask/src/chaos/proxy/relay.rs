//! One connection through the proxy: two threads, one a direction.

use super::super::wire::{
    self, ADD_OFFSETS, ADD_PARTITIONS, END_TXN, read_frame, request_header, write_frame,
};
use super::book::{Book, Order, Stray};
use std::collections::BTreeMap;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// How long a broker may take to answer a copy.
const STRAY_LIMIT: Duration = Duration::from_secs(5);

/// A request of a transaction whose answer is to come.
#[derive(Debug, Clone)]
struct Expected {
    key: i16,
    version: i16,
    id: String,
    /// The connection breaks instead of this answer.
    is_lost: bool,
}

/// The requests of transactions without an answer, by correlation id.
type Expectations = Arc<Mutex<BTreeMap<i32, Expected>>>;

/// Takes clients for the broker at that port, for ever.
pub(super) fn accept(listener: &TcpListener, broker: u16, book: &Arc<Book>) {
    for client in listener.incoming() {
        let Ok(client) = client else { continue };
        // A broker that is down refuses: so does the proxy, by closing.
        let Ok(upstream) = TcpStream::connect(("127.0.0.1", broker)) else {
            continue;
        };
        // A client that is gone already is noticed by the threads.
        let _ = serve(&client, &upstream, broker, book);
    }
}

fn serve(
    client: &TcpStream,
    upstream: &TcpStream,
    broker: u16,
    book: &Arc<Book>,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    upstream.set_nodelay(true)?;
    let expectations = Expectations::default();
    let mut there = Connection {
        from: client.try_clone()?,
        to: upstream.try_clone()?,
        broker,
        book: Arc::clone(book),
        expectations: Arc::clone(&expectations),
    };
    let mut back = Connection {
        from: upstream.try_clone()?,
        to: client.try_clone()?,
        broker,
        book: Arc::clone(book),
        expectations,
    };
    thread::spawn(move || {
        while there.pass_request().is_some() {}
        there.close();
    });
    thread::spawn(move || {
        while back.pass_answer().is_some() {}
        back.close();
    });
    Ok(())
}

/// One direction of a connection.
struct Connection {
    from: TcpStream,
    to: TcpStream,
    broker: u16,
    book: Arc<Book>,
    expectations: Expectations,
}

impl Connection {
    fn close(&self) {
        // What is closed already cannot be closed: that is no matter.
        let _ = self.from.shutdown(Shutdown::Both);
        let _ = self.to.shutdown(Shutdown::Both);
    }

    /// `None`: the connection is at its end.
    fn pass_request(&mut self) -> Option<()> {
        let frame = read_frame(&mut self.from).ok()?;
        if let Some(mut expected) = expected_by(&frame) {
            if expected.key == END_TXN
                && let Some(order) = self.book.take_order()
            {
                expected.is_lost = matches!(order, Order::LoseAnswer | Order::Duplicate);
                self.obey(order, &expected, &frame)?;
            }
            let correlation = request_header(&frame).ok()?.correlation;
            self.expectations().insert(correlation, expected);
        }
        write_frame(&mut self.to, &frame).ok()
    }

    /// `None`: the connection breaks before the request was passed on.
    fn obey(&self, order: Order, expected: &Expected, frame: &[u8]) -> Option<()> {
        if matches!(order, Order::Withhold | Order::Duplicate) {
            let stray = Stray {
                broker: self.broker,
                frame: frame.to_vec(),
            };
            self.book.keep(&expected.id, stray);
        }
        match order {
            Order::Delay(by) => thread::sleep(by),
            Order::Withhold => return None,
            Order::LoseAnswer | Order::Duplicate => {}
        }
        Some(())
    }

    fn pass_answer(&mut self) -> Option<()> {
        let frame = read_frame(&mut self.from).ok()?;
        let correlation = i32::from_be_bytes(frame[..4].try_into().ok()?);
        let expected = self.expectations().remove(&correlation);
        if let Some(expected) = expected {
            if expected.is_lost {
                self.book.note_lost_answer();
                return None;
            }
            self.note(&expected, &frame);
        }
        write_frame(&mut self.to, &frame).ok()
    }

    /// Follows the transaction; copies are sent before the client knows that it has begun.
    fn note(&self, expected: &Expected, answer: &[u8]) {
        if expected.key != END_TXN {
            for stray in self.book.begin(&expected.id) {
                deliver(&stray, &self.book);
            }
        } else if wire::end_txn_error(answer, expected.version).is_ok_and(|error| error == 0) {
            self.book.end(&expected.id);
        }
    }

    fn expectations(&self) -> std::sync::MutexGuard<'_, BTreeMap<i32, Expected>> {
        let held = self.expectations.lock();
        held.unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None`: the request is none of a transaction.
fn expected_by(frame: &[u8]) -> Option<Expected> {
    let header = request_header(frame).ok()?;
    if ![ADD_PARTITIONS, ADD_OFFSETS, END_TXN].contains(&header.key) {
        return None;
    }
    Some(Expected {
        key: header.key,
        version: header.version,
        id: wire::transactional_id(frame).ok()?,
        is_lost: false,
    })
}

/// Sends a copy on a connection of its own. Without an answer it may not have arrived: not counted.
fn deliver(stray: &Stray, book: &Book) {
    let Ok(answer) = wire::exchange(stray.broker, &stray.frame, STRAY_LIMIT) else {
        return;
    };
    let version = request_header(&stray.frame).map(|header| header.version);
    let error = version.and_then(|version| wire::end_txn_error(&answer, version));
    if let Ok(error) = error {
        book.note_stray(error != 0);
    }
}
