//! The batch with real sockets and a real event loop: whatever is collected, cut, closed and reused,
//! each peer gets what was sent to it, in order, and nothing else.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, Read};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::{spawn_local, yield_now};

use super::*;
use crate::buffer::Outbox;
use crate::demo::skipped;
use crate::net::Stream;

/// Whether this machine has io_uring; what needs it is skipped where it has not.
fn has_ring() -> bool {
    check().map_err(|why| skipped("io_uring", &why)).is_ok()
}

/// Runs on a worker that collects, or not at all where that is forbidden.
pub(crate) fn on_worker(work: impl Future<Output = ()> + 'static) {
    if !has_ring() {
        return;
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime");
    runtime.block_on(async {
        let flusher = spawn_local(flush_rounds());
        yield_now().await;
        spawn_local(work).await.expect("no panic");
        flusher.abort();
    });
}

/// One end of a connection, as a session has it, and its peer.
fn pair() -> (Stream, std::os::unix::net::UnixStream) {
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("set");
    theirs.set_nonblocking(true).expect("set");
    let ours = UnixStream::from_std(ours).expect("a socket");
    (ours.into(), theirs)
}

/// Waits until the event loop knows that it can be written to, without which nothing is tried.
async fn writable(stream: &Stream) {
    match stream {
        Stream::Unix(s) => s.peek().writable().await,
        Stream::Tcp(s) => s.peek().writable().await,
        Stream::Tls(_) => unreachable!("what is beneath it is"),
    }
    .expect("writable");
}

pub(crate) fn make_small(stream: &Stream) {
    let fd = match stream {
        Stream::Unix(s) => SockRef::from(s.peek()).set_send_buffer_size(1),
        Stream::Tcp(s) => SockRef::from(s.peek()).set_send_buffer_size(1),
        Stream::Tls(_) => unreachable!("what is beneath it is"),
    };
    fd.expect("set");
}

/// What has arrived; `None` if nothing has.
fn arrived(peer: &mut impl Read) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 64 * 1024];
    match peer.read(&mut bytes) {
        Ok(n) => Some(bytes[..n].to_vec()),
        Err(e) => {
            assert_eq!(e.kind(), io::ErrorKind::WouldBlock);
            None
        }
    }
}

pub(crate) async fn send(outbox: &mut Outbox, stream: &mut Stream, bytes: &[u8]) {
    poll_fn(|cx| Poll::Ready(outbox.send(stream, cx, bytes)))
        .await
        .expect("sent");
}

#[test]
fn what_is_collected_leaves_at_the_end_of_the_round_by_itself() {
    on_worker(async {
        let (mut stream, mut peer) = pair();
        let mut outbox = Outbox::default();
        send(&mut outbox, &mut stream, b"one").await;
        send(&mut outbox, &mut stream, b"two").await;
        assert!(stream.may_have_collected());
        assert_eq!(arrived(&mut peer), None);
        for _ in 0..LAPS {
            yield_now().await;
        }
        assert_eq!(arrived(&mut peer).expect("sent"), b"onetwo");
        assert!(outbox.has_sent_all(&stream));
        assert!(!stream.may_have_collected());
    });
}

#[test]
fn a_round_ends_though_the_worker_has_always_something_to_do() {
    on_worker(async {
        let busy = spawn_local(async {
            loop {
                yield_now().await;
            }
        });
        let (mut stream, peer) = pair();
        let mut outbox = Outbox::default();
        send(&mut outbox, &mut stream, b"x").await;
        let peer = UnixStream::from_std(peer).expect("a socket");
        let began = Instant::now();
        peer.readable().await.expect("readable");
        assert!(began.elapsed() < Duration::from_secs(10));
        busy.abort();
    });
}

#[test]
fn who_must_know_that_nothing_is_unsent_sends_it_first() {
    on_worker(async {
        let (mut stream, mut peer) = pair();
        let mut outbox = Outbox::default();
        send(&mut outbox, &mut stream, b"x").await;
        assert!(outbox.has_sent_all(&stream));
        assert_eq!(arrived(&mut peer).expect("sent"), b"x");
    });
}

#[test]
fn a_write_past_the_batch_and_what_is_appended_come_behind_what_is_collected() {
    on_worker(async {
        let (mut stream, mut peer) = pair();
        writable(&stream).await;
        let mut outbox = Outbox::default();
        send(&mut outbox, &mut stream, b"a").await;
        assert_eq!(stream.try_write(b"b").expect("written"), 1);
        send(&mut outbox, &mut stream, b"c").await;
        outbox.append(|out| out.push(b'd'));
        send(&mut outbox, &mut stream, b"e").await;
        send(&mut outbox, &mut stream, b"f").await;
        send(&mut outbox, &mut stream, &[b'g'; 3000]).await;
        send(&mut outbox, &mut stream, b"h").await;
        drop(stream);
        let mut expected = b"abcdef".to_vec();
        expected.resize(6 + 3000, b'g');
        expected.push(b'h');
        assert!(arrived(&mut peer).expect("sent") == expected);
    });
}

#[test]
fn a_socket_that_is_closed_sends_first_and_the_next_of_its_number_gets_none_of_it() {
    on_worker(async {
        // Other threads take numbers, too.
        let mut reused = 0;
        for _ in 0..200 {
            let (mut first, mut first_peer) = pair();
            let number = first.as_raw_fd();
            send(&mut Outbox::default(), &mut first, b"first").await;
            drop(first);
            let (mut second, mut second_peer) = pair();
            reused += usize::from(second.as_raw_fd() == number);
            send(&mut Outbox::default(), &mut second, b"second").await;
            flush();
            assert_eq!(arrived(&mut first_peer).expect("sent"), b"first");
            assert_eq!(arrived(&mut second_peer).expect("sent"), b"second");
        }
        assert!(reused > 0);
    });
}

#[test]
fn a_socket_that_goes_to_another_worker_sends_first() {
    on_worker(async {
        let (mut stream, mut peer) = pair();
        send(&mut Outbox::default(), &mut stream, b"x").await;
        let detached = stream.detach().expect("detached");
        assert_eq!(arrived(&mut peer).expect("sent"), b"x");
        let mut stream = detached.attach().expect("attached");
        send(&mut Outbox::default(), &mut stream, b"y").await;
        drop(stream);
        assert_eq!(arrived(&mut peer).expect("sent"), b"y");
    });
}

/// Fills the socket until a collected message is not taken.
async fn fill(outbox: &mut Outbox, stream: &mut Stream) -> usize {
    make_small(stream);
    let mut sent = 0;
    loop {
        send(outbox, stream, &[b'.'; 1000]).await;
        sent += 1000;
        if !stream.has_sent_all() {
            return sent;
        }
        assert!(sent < 1 << 24, "it is never full");
    }
}

#[test]
fn as_long_as_something_is_not_taken_nothing_else_can_be_written() {
    on_worker(async {
        let (mut stream, _peer) = pair();
        let mut outbox = Outbox::default();
        fill(&mut outbox, &mut stream).await;
        assert!(!outbox.has_sent_all(&stream));
        let past = stream.try_write(b"!").expect_err("past what waits");
        assert_ne!(past.kind(), io::ErrorKind::WouldBlock);
        assert!(stream.detach().is_err());
    });
}

#[test]
fn what_is_not_taken_is_the_connections_again_and_its_task_is_woken() {
    on_worker(async {
        let (mut stream, mut peer) = pair();
        writable(&stream).await;
        make_small(&stream);
        let mut full = 0;
        while let Ok(n) = stream.try_write(&[b'.'; 1000]) {
            full += n;
        }
        let woken = Rc::new(Cell::new(false));
        let woken_too = Rc::clone(&woken);
        let sender = spawn_local(async move {
            let mut outbox = Outbox::default();
            let mut first = true;
            poll_fn(|cx| {
                if std::mem::take(&mut first) {
                    outbox.send(&mut stream, cx, b"one").expect("collected");
                    outbox.send(&mut stream, cx, b"|two").expect("collected");
                    return Poll::Pending;
                }
                // Nobody has read: only the end of the round can have woken it.
                woken_too.set(true);
                Poll::Ready(())
            })
            .await;
            outbox.append(|out| out.extend_from_slice(b"|behind"));
            send(&mut outbox, &mut stream, b"|last").await;
            poll_fn(|cx| outbox.poll_flush(&mut stream, cx))
                .await
                .expect("sent");
            assert!(outbox.has_sent_all(&stream));
        });
        for _ in 0..20 {
            yield_now().await;
        }
        assert!(woken.get());
        let mut all = Vec::new();
        while !sender.is_finished() {
            all.append(&mut arrived(&mut peer).unwrap_or_default());
            yield_now().await;
        }
        sender.await.expect("no panic");
        all.append(&mut arrived(&mut peer).unwrap_or_default());
        assert_eq!(all[full..], *b"one|two|behind|last");
    });
}

#[test]
fn an_error_comes_at_the_next_poll_and_stays() {
    on_worker(async {
        let task = spawn_local(async {
            let (mut stream, peer) = pair();
            drop(peer);
            let mut outbox = Outbox::default();
            let mut polls = 0;
            poll_fn(|cx| {
                polls += 1;
                if polls == 1 {
                    outbox.send(&mut stream, cx, b"x").expect("collected");
                    return Poll::Pending;
                }
                for _ in 0..2 {
                    let polled = outbox.poll_flush(&mut stream, cx);
                    let Poll::Ready(Err(e)) = polled else {
                        panic!("{polled:?}");
                    };
                    assert_eq!(e.kind(), io::ErrorKind::BrokenPipe);
                }
                assert!(outbox.send(&mut stream, cx, b"z").is_err());
                assert!(!outbox.has_sent_all(&stream));
                assert!(stream.try_write(b"z").is_err());
                Poll::Ready(())
            })
            .await;
        });
        task.await.expect("no panic");
        BATCH.with_borrow(|batch| assert!(batch.left.is_empty(), "{:?}", batch.left));
    });
}

#[test]
fn without_a_worker_nothing_is_collected() {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    runtime.expect("a runtime").block_on(async {
        let (mut stream, mut peer) = pair();
        writable(&stream).await;
        let mut outbox = Outbox::default();
        send(&mut outbox, &mut stream, b"x").await;
        assert!(!stream.may_have_collected());
        assert_eq!(arrived(&mut peer).expect("sent"), b"x");
    });
}

#[test]
fn when_the_collecting_ends_everything_is_sent_and_later_sends_are_direct() {
    if !has_ring() {
        return;
    }
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default());
    runtime.expect("a runtime").block_on(async {
        let flusher = spawn_local(flush_rounds());
        yield_now().await;
        let (mut stream, mut peer) = pair();
        writable(&stream).await;
        let mut outbox = Outbox::default();
        send(&mut outbox, &mut stream, b"x").await;
        assert!(stream.may_have_collected());
        flusher.abort();
        assert!(flusher.await.expect_err("aborted").is_cancelled());
        assert_eq!(arrived(&mut peer).expect("sent"), b"x");
        send(&mut outbox, &mut stream, b"y").await;
        assert_eq!(arrived(&mut peer).expect("sent"), b"y");
    });
}

/// Byte `at` of connection `id`: a byte of another, or from elsewhere, is seen nearly always.
fn byte(id: u64, at: usize) -> u8 {
    let mixed = (id << 32 | at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 56) as u8
}

/// A connection that sends at random and then closes, in one of several ways.
struct Sender {
    id: u64,
    stream: Option<Stream>,
    outbox: Outbox,
    sent: usize,
    rng: SmallRng,
}

impl Sender {
    fn next(&mut self, len: usize) -> Vec<u8> {
        let from = self.sent;
        self.sent += len;
        (from..self.sent).map(|at| byte(self.id, at)).collect()
    }

    /// Ready with whether all of what was sent must arrive.
    fn poll(&mut self, cx: &mut Context<'_>, model: &Model) -> Poll<bool> {
        for _ in 0..self.rng.random_range(1..6) {
            let mut stream = self.stream.take().expect("BUG: no stream");
            if self.outbox.poll_flush(&mut stream, cx).is_pending() {
                model.held_up.set(model.held_up.get() + 1);
                self.stream = Some(stream);
                return Poll::Pending;
            }
            match self.rng.random_range(0..100) {
                0..60 => {
                    let bytes = {
                        let len = self.rng.random_range(1..400);
                        self.next(len)
                    };
                    self.outbox.send(&mut stream, cx, &bytes).expect("sent");
                }
                60..70 => {
                    let bytes = {
                        let len = self.rng.random_range(1..9000);
                        self.next(len)
                    };
                    self.outbox.send(&mut stream, cx, &bytes).expect("sent");
                }
                70..80 => {
                    let bytes = self.next(20);
                    self.outbox.append(|out| out.extend_from_slice(&bytes));
                }
                80..85 => {
                    let _sent_all = self.outbox.has_sent_all(&stream);
                }
                85..90 => flush(),
                90..95 => {
                    if self.outbox.has_sent_all(&stream) {
                        stream = stream
                            .detach()
                            .expect("detached")
                            .attach()
                            .expect("attached");
                    }
                }
                95..98 => {
                    let done = self.outbox.poll_flush_all(&mut stream, cx);
                    if let Poll::Ready(flushed) = done {
                        flushed.expect("sent");
                        assert!(self.outbox.has_sent_all(&stream));
                        return Poll::Ready(true);
                    }
                    self.stream = Some(stream);
                    return Poll::Pending;
                }
                _ => return Poll::Ready(false),
            }
            self.stream = Some(stream);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[derive(Default)]
struct Model {
    bytes: Cell<usize>,
    held_up: Cell<usize>,
    cut: Cell<usize>,
}

async fn tcp_pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("an address"));
    let (ours, theirs) = tokio::join!(ours, listener.accept());
    (ours.expect("connected").into(), theirs.expect("accepted").0)
}

/// A connection from its beginning to its end, and its peer, which reads at its leisure.
async fn connection(id: u64, seed: u64, model: Rc<Model>) {
    let mut rng = SmallRng::seed_from_u64(seed ^ id << 16);
    let (stream, mut peer): (Stream, Box<dyn tokio::io::AsyncRead + Unpin>) =
        if rng.random_bool(0.2) {
            let (ours, theirs) = tcp_pair().await;
            (ours, Box::new(theirs))
        } else {
            let (ours, theirs) = pair();
            (
                ours,
                Box::new(UnixStream::from_std(theirs).expect("a socket")),
            )
        };
    if rng.random_bool(0.5) {
        make_small(&stream);
    }
    let mut reader_rng = SmallRng::seed_from_u64(rng.random());
    let reader = spawn_local(async move {
        let mut at = 0;
        let mut buffer = vec![0; 8 * 1024];
        loop {
            for _ in 0..reader_rng.random_range(0..8) {
                yield_now().await;
            }
            let room = reader_rng.random_range(1..buffer.len());
            // A peer that closed with something unread resets a TCP connection.
            let Ok(n) = peer.read(&mut buffer[..room]).await else {
                return at;
            };
            if n == 0 {
                return at;
            }
            for (n, &b) in buffer[..n].iter().enumerate() {
                assert_eq!(b, byte(id, at + n), "byte {} of connection {id}", at + n);
            }
            at += n;
        }
    });
    let mut sender = Sender {
        id,
        stream: Some(stream),
        outbox: Outbox::default(),
        sent: 0,
        rng,
    };
    let whole = poll_fn(|cx| sender.poll(cx, &model)).await;
    let sent = sender.sent;
    drop(sender);
    let arrived = reader.await.expect("what arrives is what was sent");
    assert!(arrived <= sent);
    if whole {
        assert_eq!(arrived, sent, "connection {id}");
    }
    model.cut.set(model.cut.get() + usize::from(arrived < sent));
    model.bytes.set(model.bytes.get() + arrived);
}

#[test]
fn each_peer_gets_what_was_sent_to_it_and_nothing_else() {
    let seed = std::env::var("POOLER_BATCH_SEED")
        .ok()
        .and_then(|s| s.parse().ok());
    let seeds = seed.map_or(1..9, |seed: u64| seed..seed + 1);
    for seed in seeds {
        on_worker(async move {
            let model = Rc::new(Model::default());
            let mut running = Vec::new();
            for lane in 0..100 {
                let model = Rc::clone(&model);
                running.push(spawn_local(async move {
                    // The numbers of closed sockets are taken again at once.
                    for n in 0..6 {
                        connection(lane * 100 + n, seed, Rc::clone(&model)).await;
                    }
                }));
            }
            for lane in running {
                lane.await.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            }
            assert!(model.bytes.get() > 1_000_000);
            assert!(model.held_up.get() > 100, "nothing was ever held up");
            assert!(model.cut.get() > 0, "nothing was ever cut off");
        });
        if check().is_ok() {
            BATCH.with_borrow(|batch| assert!(batch.left.is_empty() && batch.is_empty()));
        }
    }
}
