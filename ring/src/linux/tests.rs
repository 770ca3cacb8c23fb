//! A ring against real sockets: peers that do not read, peers that are gone, everything full.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use socket2::SockRef;

use super::*;

/// None where it is forbidden, as in many containers.
fn ring() -> Option<Ring> {
    match Ring::new() {
        Ok(ring) => Some(ring),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => None,
        Err(e) => panic!("no ring: {e}"),
    }
}

/// A socket of a connection, and its peer.
fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let ours = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
    let (theirs, _) = listener.accept().expect("accepted");
    (ours, theirs)
}

fn unix_pair() -> (UnixStream, UnixStream) {
    UnixStream::pair().expect("a pair")
}

/// The results by number.
fn flush(ring: &mut Ring) -> Vec<io::Result<usize>> {
    let mut results = Vec::new();
    ring.flush(|entry, result, _| {
        assert_eq!(entry, results.len(), "in the order of the entries");
        results.push(result);
    })
    .expect("a ring that works");
    assert!(ring.is_empty());
    results
}

fn read(from: &mut impl Read, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    from.read_exact(&mut bytes).expect("bytes");
    bytes
}

#[test]
fn each_socket_gets_its_own() {
    let Some(mut ring) = ring() else { return };
    let mut tcp: Vec<_> = (0..20).map(|_| tcp_pair()).collect();
    let mut unix: Vec<_> = (0..20).map(|_| unix_pair()).collect();
    for round in 0..50 {
        for (n, (ours, _)) in tcp.iter().enumerate() {
            let entry = ring.put(ours.as_raw_fd(), format!("{round}:{n:02}").as_bytes());
            assert_eq!(entry, Some(n));
        }
        for (n, (ours, _)) in unix.iter().enumerate() {
            assert!(
                ring.put(ours.as_raw_fd(), &[7; ENTRY_LEN_MAX][..n])
                    .is_some()
            );
            assert!(ring.append(20 + n, ours.as_raw_fd(), b"|"));
        }
        let sent = flush(&mut ring);
        assert!(sent.iter().all(Result::is_ok));
        for (n, (_, theirs)) in tcp.iter_mut().enumerate() {
            let expected = format!("{round}:{n:02}");
            assert_eq!(read(theirs, expected.len()), expected.as_bytes());
        }
        for (n, (_, theirs)) in unix.iter_mut().enumerate() {
            assert_eq!(*sent[20 + n].as_ref().expect("sent"), n + 1);
            assert_eq!(read(theirs, n + 1).last(), Some(&b'|'));
        }
    }
}

#[test]
fn there_is_a_bound_on_entries_and_on_each_of_them() {
    let Some(mut ring) = ring() else { return };
    let pairs: Vec<_> = (0..=ENTRIES_MAX).map(|_| unix_pair()).collect();
    let fds: Vec<_> = pairs.iter().map(|(ours, _)| ours.as_raw_fd()).collect();
    assert_eq!(ring.put(fds[0], &[0; ENTRY_LEN_MAX + 1]), None);
    for (n, fd) in fds[..ENTRIES_MAX].iter().enumerate() {
        assert_eq!(ring.put(*fd, &[0; ENTRY_LEN_MAX - 1]), Some(n));
    }
    assert_eq!(ring.put(fds[ENTRIES_MAX], b"x"), None);
    assert!(!ring.append(3, fds[3], b"xx"));
    assert!(ring.append(3, fds[3], b"x"));
    assert!(!ring.append(3, fds[3], b"x"));
    let sent = flush(&mut ring);
    assert_eq!(sent.len(), ENTRIES_MAX);
    assert_eq!(*sent[3].as_ref().expect("sent"), ENTRY_LEN_MAX);
    assert_eq!(ring.put(fds[ENTRIES_MAX], b"x"), Some(0));
}

#[test]
fn nothing_is_appended_to_the_entry_of_another_socket() {
    let Some(mut ring) = ring() else { return };
    let entry = ring.put(0, b"x").expect("room");
    let append = std::panic::AssertUnwindSafe(|| ring.append(entry, 1, b"y"));
    assert!(std::panic::catch_unwind(append).is_err());
}

#[test]
fn a_peer_that_does_not_read_makes_a_send_short_and_then_empty() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = unix_pair();
    SockRef::from(&ours).set_send_buffer_size(1).expect("small");
    let (other, mut others) = unix_pair();
    let mut sent = Vec::new();
    let mut full = false;
    for n in 0_u8..200 {
        ring.put(ours.as_raw_fd(), &[n; ENTRY_LEN_MAX]);
        ring.put(other.as_raw_fd(), &[n]);
        let results = flush(&mut ring);
        let taken = *results[0].as_ref().expect("no error");
        assert_eq!(*results[1].as_ref().expect("another is not held up"), 1);
        assert_eq!(read(&mut others, 1), [n]);
        sent.extend_from_slice(&[n; ENTRY_LEN_MAX][..taken]);
        full |= taken == 0;
    }
    assert!(full);
    drop(ours);
    let mut arrived = Vec::new();
    theirs.read_to_end(&mut arrived).expect("read");
    assert!(arrived == sent);
}

#[test]
fn a_send_to_a_tcp_peer_that_does_not_read_is_short_once() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = tcp_pair();
    SockRef::from(&ours).set_send_buffer_size(1).expect("small");
    SockRef::from(&theirs)
        .set_recv_buffer_size(1)
        .expect("small");
    let (other, mut others) = unix_pair();
    let mut rng = SmallRng::seed_from_u64(1);
    let mut sent = Vec::new();
    for _ in 0..2000 {
        let bytes: Vec<u8> = (0..rng.random_range(1..=ENTRY_LEN_MAX))
            .map(|_| rng.random())
            .collect();
        ring.put(ours.as_raw_fd(), &bytes);
        // Without another it would not be sent through the ring.
        ring.put(other.as_raw_fd(), b"x");
        let taken = *flush(&mut ring)[0].as_ref().expect("no error");
        assert_eq!(read(&mut others, 1), b"x");
        sent.extend_from_slice(&bytes[..taken]);
        if taken == 0 {
            break;
        }
    }
    let result = {
        ring.put(ours.as_raw_fd(), b"x");
        flush(&mut ring).remove(0).expect("no error")
    };
    assert_eq!(result, 0);
    drop(ours);
    let mut arrived = Vec::new();
    theirs.read_to_end(&mut arrived).expect("read");
    assert!(arrived == sent);
}

#[test]
fn a_peer_that_is_gone_and_a_number_that_is_none_are_errors_of_their_entries_alone() {
    let Some(mut ring) = ring() else { return };
    let (ours, theirs) = unix_pair();
    drop(theirs);
    let (other, mut others) = unix_pair();
    ring.put(ours.as_raw_fd(), b"lost");
    ring.put(other.as_raw_fd(), b"a");
    ring.put(RawFd::MAX, b"nowhere");
    ring.put(-1, b"nowhere");
    let (last, mut lasts) = unix_pair();
    ring.put(last.as_raw_fd(), b"b");
    let results = flush(&mut ring);
    let code = |n: usize| results[n].as_ref().err().and_then(io::Error::raw_os_error);
    assert_eq!(code(0), Some(libc::EPIPE));
    assert_eq!(code(2), Some(libc::EBADF));
    assert_eq!(code(3), Some(libc::EBADF));
    assert_eq!(read(&mut others, 1), b"a");
    assert_eq!(read(&mut lasts, 1), b"b");
    for (fd, expected) in [(ours.as_raw_fd(), libc::EPIPE), (-1, libc::EBADF)] {
        ring.put(fd, b"alone");
        let error = flush(&mut ring).remove(0).expect_err("an error");
        assert_eq!(error.raw_os_error(), Some(expected));
    }
}

#[test]
fn an_only_entry_needs_no_ring() {
    let Some(mut ring) = ring() else { return };
    let (ours, mut theirs) = unix_pair();
    let broken = IoUring::builder().setup_r_disabled().build(64);
    ring.uring = broken.expect("a ring that is not enabled");
    ring.put(ours.as_raw_fd(), b"alone");
    assert_eq!(flush(&mut ring).remove(0).expect("sent"), 5);
    assert_eq!(read(&mut theirs, 5), b"alone");
}

#[test]
fn every_entry_is_told_of_when_the_kernel_takes_no_call() {
    let Some(mut ring) = ring() else { return };
    let (ours, theirs) = unix_pair();
    theirs.set_nonblocking(true).expect("set");
    let broken = IoUring::builder().setup_r_disabled().build(64);
    ring.uring = broken.expect("a ring that is not enabled");
    ring.put(ours.as_raw_fd(), b"first");
    ring.put(ours.as_raw_fd(), b"second");
    let mut told = Vec::new();
    let flushed = ring.flush(|entry, result, bytes| {
        told.push((
            entry,
            result.expect("not seen, so not sent"),
            bytes.to_vec(),
        ));
    });
    assert!(flushed.is_err());
    assert_eq!(
        told,
        [(0, 0, b"first".to_vec()), (1, 0, b"second".to_vec())]
    );
    let nothing = (&theirs).read(&mut [0; 1]).expect_err("nothing");
    assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn what_arrives_is_what_was_taken_in_this_order() {
    let Some(mut ring) = ring() else { return };
    let mut pairs: Vec<_> = (0..8).map(|_| unix_pair()).collect();
    let mut rng = SmallRng::seed_from_u64(2);
    let mut sent = vec![Vec::new(); pairs.len()];
    let mut arrived = vec![Vec::new(); pairs.len()];
    for _ in 0..2000 {
        let mut entries = Vec::new();
        for (n, (ours, _)) in pairs.iter().enumerate() {
            if rng.random_bool(0.5) {
                let bytes: Vec<u8> = (0..rng.random_range(1..300))
                    .map(|_| rng.random())
                    .collect();
                ring.put(ours.as_raw_fd(), &bytes);
                entries.push((n, bytes));
            }
        }
        for ((n, bytes), result) in entries.iter().zip(flush(&mut ring)) {
            let taken = result.expect("no error");
            sent[*n].extend_from_slice(&bytes[..taken]);
        }
        let n = rng.random_range(0..pairs.len());
        let mut some = vec![0; 4096];
        pairs[n].1.set_nonblocking(true).expect("set");
        if let Ok(len) = pairs[n].1.read(&mut some) {
            arrived[n].extend_from_slice(&some[..len]);
        }
    }
    for (n, (ours, mut theirs)) in pairs.into_iter().enumerate() {
        drop(ours);
        theirs.set_nonblocking(false).expect("set");
        theirs.read_to_end(&mut arrived[n]).expect("read");
        assert!(arrived[n] == sent[n], "socket {n}");
    }
}
