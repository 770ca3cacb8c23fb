//! HTTP as far as the tests need it.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::{PATIENCE, Pooler, wait_until};

/// The status line of the answer to a GET, and its body.
pub fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let line = head.lines().next().unwrap_or_default();
    (line.to_owned(), body.to_owned())
}

/// Where a pooler serves its metrics, as its log says.
pub fn metrics_port(pooler: &Pooler) -> u16 {
    let mut port = None;
    wait_until("the log names the address of the metrics", || {
        let log = pooler.log();
        let after = log.split("metrics on http://127.0.0.1:").nth(1);
        port = after.and_then(|rest| rest.split('/').next()?.parse().ok());
        port.is_some()
    });
    port.expect("just seen")
}
