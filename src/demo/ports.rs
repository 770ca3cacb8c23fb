//! Free ports on the loopback address.
//!
//! They lie below 32768, where no system takes the near end of an outgoing connection from, so that a port stays free
//! between the look and the use. Another process can still take it: whoever binds must be ready to try again.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use socket2::{Domain, Socket, Type};

const FIRST: u16 = 10_240;
const LAST: u16 = 32_767;
const TRIES_MAX: usize = 500;

/// A port that nobody listens on at 127.0.0.1 just now; this process is never given the same one twice.
///
/// # Errors
/// `AddrInUse` when none was found in many tries.
pub fn free_port() -> io::Result<u16> {
    static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_default();
    for _ in 0..TRIES_MAX {
        let port = rand::random_range(FIRST..=LAST);
        if given.contains(&port) {
            continue;
        }
        if is_free(port) {
            given.insert(port);
            return Ok(port);
        }
    }
    let none = format!("no free port between {FIRST} and {LAST} on 127.0.0.1");
    Err(io::Error::new(io::ErrorKind::AddrInUse, none))
}

/// Whether nobody listens there. The socket that finds out is bound and never listens: the child of another thread holds
/// a copy until it has got as far as its program, and with a copy that listens, whoever looks for the port's next owner
/// would be let in, and then be closed upon.
fn is_free(port: u16) -> bool {
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).and_then(|socket| {
        // So does whoever listens there next (PostgreSQL, the standard library, our listener): a copy is in nobody's way.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)).into())
    });
    bound.is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_port_where_somebody_listens_is_not_free() {
        let port = free_port().expect("a port");
        assert!(is_free(port));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a listener");
        assert!(!is_free(port));
        drop(listener);
    }

    #[test]
    fn nobody_answers_at_a_free_port_while_others_start_programs() {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let started = Command::new("true").status();
                        assert!(started.expect("a program").success());
                    }
                });
            }
            let ports: Vec<_> = (0..500)
                .map(|_| {
                    let port = free_port()?;
                    let answers = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
                    io::Result::Ok((port, answers))
                })
                .collect();
            over.store(true, Ordering::Relaxed);
            for port in ports {
                let (port, answers) = port.expect("a port");
                assert!(!answers, "{port}");
            }
        });
    }
}
