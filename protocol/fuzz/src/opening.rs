//! A connection that begins with TLS, or not, while somebody puts bytes where he should not: before and behind the
//! SSLRequest, within the ClientHello, behind the answer. TLS itself is a stand-in here that knows what its honest client has
//! sent: what must never happen is that a byte that came in the clear is read as one that came through TLS, or the reverse.

use pooler_protocol::startup::{Opening, StartupError, Step};

use super::{take, take_part};

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 48];
const HELLO: [u8; 6] = [0x16, 3, 1, 0, 1, 0];
const STARTUP: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0ann\0\0";

/// What arrives in the clear, and what an honest client says through TLS once there is one.
struct Wire {
    clear: Vec<Vec<u8>>,
    through_tls: Vec<Vec<u8>>,
}

impl Wire {
    /// Pieces that messages are made of, so that many inputs get far; and bytes of the fuzzer's own.
    fn of(mut data: &[u8]) -> Self {
        let mut wire = Self {
            clear: Vec::new(),
            through_tls: Vec::new(),
        };
        let pieces = usize::from(take(&mut data)) % 12;
        for _ in 0..pieces {
            let kind = take(&mut data);
            let bytes = match kind & 7 {
                0 | 1 => SSL_REQUEST.to_vec(),
                2 => GSS_REQUEST.to_vec(),
                3 => HELLO.to_vec(),
                4 => STARTUP.to_vec(),
                5 => b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01abcd".to_vec(),
                _ => take_part(&mut data).to_vec(),
            };
            // Cut in two, or joined to the one before.
            let cut = usize::from(kind >> 4).min(bytes.len());
            let (front, back) = bytes.split_at(cut);
            let through_tls = kind & 8 != 0;
            let list = if through_tls {
                &mut wire.through_tls
            } else {
                &mut wire.clear
            };
            match list.last_mut() {
                Some(last) if kind & 0x80 != 0 => last.extend_from_slice(front),
                _ => list.push(front.to_vec()),
            }
            list.push(back.to_vec());
        }
        wire.clear.reverse();
        wire.through_tls.reverse();
        wire
    }
}

/// See the module.
pub fn run(mut data: &[u8]) {
    let offers_tls = take(&mut data) & 1 == 0;
    let mut wire = Wire::of(data);
    let mut opening = Opening::new(offers_tls);
    let mut received: Vec<u8> = Vec::new();
    let mut answers = Vec::new();
    let mut encrypted = false;
    loop {
        assert_eq!(opening.is_encrypted(), encrypted);
        match opening.next(&received) {
            Ok(Step::More) => {
                let from = if encrypted {
                    &mut wire.through_tls
                } else {
                    &mut wire.clear
                };
                let Some(piece) = from.pop() else { return };
                received.extend(piece);
            }
            Ok(Step::Refuse { used, answer }) => {
                assert!(!encrypted, "an answer in the clear through TLS");
                assert!(used <= received.len() && answer == b'N');
                answers.push(answer);
                received.drain(..used);
            }
            Ok(Step::BeginTls { answer }) => {
                assert!(offers_tls && !encrypted && answer == b'S');
                // Nothing behind the request: what comes in the clear from here on goes to the handshake, which refuses it.
                assert_eq!(received, SSL_REQUEST);
                answers.push(answer);
                received.clear();
                encrypted = true;
            }
            Ok(Step::BeginTlsDirectly) => {
                assert!(offers_tls && !encrypted && answers.is_empty());
                assert!(received.starts_with(&HELLO[..2]) || received == HELLO[..1]);
                received.clear();
                encrypted = true;
            }
            Ok(Step::Cancel { key, .. }) => {
                assert!((4..=256).contains(&key.len()));
                break;
            }
            Ok(Step::Session { used, startup }) => {
                assert!(used <= received.len() && !startup.user().is_empty());
                break;
            }
            Err(e) => {
                if encrypted {
                    assert_ne!(e, StartupError::UnencryptedData);
                }
                break;
            }
        }
        assert!(answers.len() <= 2, "one of each at most");
    }
    assert!(answers.iter().filter(|&&a| a == b'S').count() <= 1);
}
