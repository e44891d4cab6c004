//! A proxy on loopback that understands Kafka's transactions.
//!
//! Comes in: clients of the PROXIED listeners, and [`Order`]s. Goes out: the same requests and answers,
//! but for `EndTxn`, which is delayed, withheld, repeated, or loses its answer, as ordered; and a count
//! of what was really done ([`Counts`]). Never here: the choice of what to do when.
//!
//! A request is never repeated behind the back of a client that got its answer: TCP cannot do that
//! either. A stray copy comes only after the client has seen its connection break.

mod book;
mod relay;

pub use book::{Counts, Order};

use anyhow::Context;
use book::Book;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

/// A running proxy. Its threads end with the process.
#[derive(Debug, Clone)]
pub struct Proxy {
    book: Arc<Book>,
}

impl Proxy {
    /// Listens at each first port on 127.0.0.1 for the broker at the second one.
    ///
    /// # Errors
    /// When a port is taken.
    pub fn start(ports: &[(u16, u16)]) -> anyhow::Result<Proxy> {
        let book = Arc::new(Book::default());
        for &(own, broker) in ports {
            let listener = TcpListener::bind(("127.0.0.1", own)).with_context(|| {
                format!("the proxy cannot listen on port {own}; end what listens there")
            })?;
            let book = Arc::clone(&book);
            thread::spawn(move || relay::accept(&listener, broker, &book));
        }
        Ok(Proxy { book })
    }

    /// From now on, the next `EndTxn` of any producer is treated so; orders wait in line.
    pub fn order(&self, order: Order) {
        self.book.order(order);
    }

    /// Takes back what was ordered and not done; the answer is how many orders that were.
    #[must_use]
    pub fn withdraw(&self) -> usize {
        self.book.withdraw()
    }

    /// How many orders wait in line.
    #[must_use]
    pub fn orders_waiting(&self) -> usize {
        self.book.orders_waiting()
    }

    /// How many copies wait for the next transaction of their producer.
    #[must_use]
    pub fn strays_waiting(&self) -> usize {
        self.book.strays_waiting()
    }

    /// How many transactions of that `transactional.id` have begun, and whether the newest is open.
    #[must_use]
    pub fn transactions(&self, id: &str) -> (u64, bool) {
        self.book.transactions(id)
    }

    /// What was done until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.book.counts()
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::{ADD_PARTITIONS, END_TXN, Writer, read_frame, write_frame};
    use super::*;
    use std::net::TcpStream;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    const FENCED: i16 = 90;

    /// A broker that reports every frame and answers it: `EndTxn` on a second connection is fenced.
    fn broker() -> (u16, Receiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let (sender, frames) = channel();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let sender = sender.clone();
                let mut stream = stream.expect("a client");
                thread::spawn(move || {
                    while let Ok(frame) = read_frame(&mut stream) {
                        let mut answer = Writer::default();
                        answer.0.extend(&frame[4..8]);
                        answer.i32(0).i16(if number == 0 { 0 } else { FENCED });
                        sender.send(frame).expect("the test listens");
                        if write_frame(&mut stream, &answer.0).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        (port, frames)
    }

    fn request(key: i16, correlation: i32) -> Vec<u8> {
        let mut request = Writer::default();
        request.i16(key).i16(1).i32(correlation).string("client");
        request.string("ticks-0").i64(1).i16(0).i8(1);
        request.0
    }

    struct Trial {
        proxy: Proxy,
        port: u16,
        frames: Receiver<Vec<u8>>,
    }

    fn trial() -> Trial {
        let (broker, frames) = broker();
        let own = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = own.local_addr().expect("it is bound").port();
        drop(own);
        let proxy = Proxy::start(&[(port, broker)]).expect("the port is free");
        Trial {
            proxy,
            port,
            frames,
        }
    }

    impl Trial {
        fn connect(&self) -> TcpStream {
            let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the proxy listens");
            let limit = Some(Duration::from_secs(60));
            stream.set_read_timeout(limit).expect("it is a socket");
            stream
        }
    }

    fn send(stream: &mut TcpStream, frame: &[u8]) -> std::io::Result<Vec<u8>> {
        write_frame(stream, frame)?;
        read_frame(stream)
    }

    #[test]
    fn without_orders_everything_passes_and_transactions_are_seen() {
        let trial = trial();
        let mut client = trial.connect();
        assert_eq!(trial.proxy.transactions("ticks-0"), (0, false));
        send(&mut client, &request(ADD_PARTITIONS, 1)).expect("an answer");
        assert_eq!(trial.proxy.transactions("ticks-0"), (1, true));
        let answer = send(&mut client, &request(END_TXN, 2)).expect("an answer");
        assert_eq!(answer[..4], 2_i32.to_be_bytes());
        assert_eq!(trial.proxy.transactions("ticks-0"), (1, false));
        assert_eq!(trial.frames.iter().take(2).count(), 2);
        assert_eq!(trial.proxy.counts(), Counts::default());
    }

    #[test]
    fn a_delayed_request_arrives_all_the_same() {
        let trial = trial();
        let mut client = trial.connect();
        trial.proxy.order(Order::Delay(Duration::from_millis(5)));
        send(&mut client, &request(END_TXN, 1)).expect("an answer");
        assert_eq!(trial.proxy.counts().delayed, 1);
        assert_eq!(trial.frames.iter().take(1).count(), 1);
    }

    #[test]
    fn a_lost_answer_is_a_request_that_arrived_and_a_connection_that_broke() {
        let trial = trial();
        let mut client = trial.connect();
        trial.proxy.order(Order::LoseAnswer);
        assert!(send(&mut client, &request(END_TXN, 1)).is_err());
        assert_eq!(trial.proxy.counts().answers_lost, 1);
        assert_eq!(trial.frames.iter().take(1).count(), 1);
    }

    #[test]
    fn a_withheld_request_comes_after_the_next_transaction_has_begun() {
        let trial = trial();
        let mut client = trial.connect();
        trial.proxy.order(Order::Withhold);
        assert!(send(&mut client, &request(END_TXN, 1)).is_err());
        assert_eq!(trial.proxy.strays_waiting(), 1);
        let mut client = trial.connect();
        let begin = request(ADD_PARTITIONS, 2);
        // This simple broker answers everything on a second connection with an error, the copy too.
        send(&mut client, &begin).expect("an answer");
        let arrived: Vec<Vec<u8>> = trial.frames.iter().take(2).collect();
        assert_eq!(arrived, [begin, request(END_TXN, 1)]);
        assert_eq!(trial.proxy.strays_waiting(), 0);
        let counts = trial.proxy.counts();
        assert_eq!((counts.strays, counts.strays_refused), (1, 1));
    }

    #[test]
    fn a_duplicate_arrives_twice() {
        let trial = trial();
        let mut client = trial.connect();
        trial.proxy.order(Order::Duplicate);
        assert!(send(&mut client, &request(END_TXN, 1)).is_err());
        let mut client = trial.connect();
        send(&mut client, &request(ADD_PARTITIONS, 2)).expect("an answer");
        let keys: Vec<i16> = trial
            .frames
            .iter()
            .take(3)
            .map(|frame| i16::from_be_bytes([frame[0], frame[1]]))
            .collect();
        assert_eq!(keys, [END_TXN, ADD_PARTITIONS, END_TXN]);
    }

    #[test]
    fn orders_that_were_not_done_can_be_taken_back() {
        let trial = trial();
        trial.proxy.order(Order::LoseAnswer);
        assert_eq!(trial.proxy.withdraw(), 1);
        assert_eq!(trial.proxy.withdraw(), 0);
    }

    #[test]
    fn a_port_that_is_taken_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = taken.local_addr().expect("it is bound").port();
        let error = Proxy::start(&[(port, 1)]).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port}")), "{error}");
    }
}
