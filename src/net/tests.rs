//! New sockets, at which the event loop has not looked yet.

use std::io::{Read, Write};

use super::*;

/// Both ends of a connection: ours, and one that has said something.
fn accepted() -> [(Stream, Box<dyn Read>); 2] {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let mut tcp = std::net::TcpStream::connect(address).expect("a connection");
    let (ours, _) = listener.accept().expect("a connection");
    ours.set_nonblocking(true).expect("a mode");
    let (ours_by_file, mut by_file) = std::os::unix::net::UnixStream::pair().expect("a pair");
    ours_by_file.set_nonblocking(true).expect("a mode");
    tcp.write_all(b"hello").expect("sent");
    by_file.write_all(b"hello").expect("sent");
    [
        (DetachedStream::Tcp(ours), Box::new(tcp) as Box<dyn Read>),
        (DetachedStream::Unix(ours_by_file), Box::new(by_file)),
    ]
    .map(|(ours, theirs)| (ours.attach().expect("an event loop"), theirs))
}

#[tokio::test]
async fn a_new_socket_is_read_and_written_before_the_event_loop_has_looked_at_it() {
    for (mut ours, mut theirs) in accepted() {
        let mut buffer = [0; 16];
        let first = ours.try_read(&mut buffer).expect_err("not looked at");
        assert_eq!(first.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(ours.read_early(&mut buffer).expect("bytes"), 5);
        assert_eq!(buffer[..5], *b"hello");
        let then = ours.read_early(&mut buffer).expect_err("no more");
        assert_eq!(then.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(ours.try_write(b"no").expect("sent"), 2);
        drop(ours);
        let mut told = String::new();
        theirs.read_to_string(&mut told).expect("an end");
        assert_eq!(told, "no");
    }
}

#[tokio::test]
async fn a_socket_that_is_full_takes_nothing() {
    for (mut ours, _theirs) in accepted() {
        let mut sent = 0;
        let end = loop {
            match ours.try_write(&[b'.'; 65536]) {
                Ok(n) => sent += n,
                Err(e) => break e,
            }
        };
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
        assert!(sent > 0);
    }
}
