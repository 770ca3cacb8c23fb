//! `/status.json` by HTTP: one request a connection, with a deadline and a bound.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{HOST, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::status::Status;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of an answer. The pooler's own are a tenth of that at most.
const ANSWER_LEN_MAX: usize = 4 * 1024 * 1024;

/// Where a pooler's status is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    authority: String,
    host: String,
    port: u16,
    path: String,
}

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The URL is none that can be asked: exit code 2.
    #[error("{url:?} is no URL of a pooler: {why}; write http://127.0.0.1:9930")]
    Url {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// Nobody answers there.
    #[error("no answer from {target}: {why}; see [metrics] listen of the pooler that runs there")]
    Silent {
        /// What was asked.
        target: String,
        /// What the system said.
        why: String,
    },
    /// It answers, but not this.
    #[error("{target} answers {status}: {text}")]
    Refused {
        /// What was asked.
        target: String,
        /// The status line's number and words.
        status: String,
        /// The first line of the answer.
        text: String,
    },
    /// It says something else.
    #[error("{target} is no pooler's status: {why}")]
    Nonsense {
        /// What was asked.
        target: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Target {
    /// From the URL of a pooler's metrics address, with or without `http://` and a path.
    ///
    /// # Errors
    /// [`FetchError::Url`].
    pub fn parse(url: &str) -> Result<Self, FetchError> {
        let wrong = |why: &str| FetchError::Url {
            url: url.to_owned(),
            why: why.to_owned(),
        };
        let full = match url.contains("://") {
            true => url.to_owned(),
            false => format!("http://{url}"),
        };
        let uri: Uri = full.parse().map_err(|e| wrong(&format!("{e}")))?;
        if uri.scheme_str() != Some("http") {
            return Err(wrong("the pooler speaks plain http there"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("the pooler asks for no user there"));
        }
        if authority.port_u16().is_none() && authority.as_str() != authority.host() {
            return Err(wrong("its port is no number"));
        }
        let path = uri.path().trim_end_matches('/');
        let path = path.strip_suffix("/status.json").unwrap_or(path);
        Ok(Self {
            authority: authority.to_string(),
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path: format!("{path}/status.json"),
        })
    }

    fn url(&self) -> String {
        format!("http://{}{}", self.authority, self.path)
    }

    /// Asks. Dropped midway, the connection is closed.
    ///
    /// # Errors
    /// All but [`FetchError::Url`].
    pub async fn fetch(&self) -> Result<Status, FetchError> {
        match tokio::time::timeout(PATIENCE, self.ask()).await {
            Ok(asked) => asked,
            Err(_elapsed) => Err(self.silent(format!("nothing within {PATIENCE:?}"))),
        }
    }

    fn silent(&self, why: impl std::fmt::Display) -> FetchError {
        FetchError::Silent {
            target: self.url(),
            why: why.to_string(),
        }
    }

    /// By the name that was given, which a proxy may need; then by the address, which the pooler takes from everybody.
    async fn ask(&self) -> Result<Status, FetchError> {
        let stream = self.connect().await?;
        let address = stream.peer_addr().map_err(|e| self.silent(e))?;
        match self.ask_as(stream, &self.authority).await {
            Err(FetchError::Refused { status, .. }) if status.starts_with("421") => {
                let again = self.connect().await?;
                self.ask_as(again, &address.to_string()).await
            }
            asked => asked,
        }
    }

    async fn connect(&self) -> Result<TcpStream, FetchError> {
        let stream = TcpStream::connect((&*self.host, self.port)).await;
        stream.map_err(|e| self.silent(e))
    }

    async fn ask_as(&self, stream: TcpStream, host: &str) -> Result<Status, FetchError> {
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|e| self.silent(e))?;
        // It ends with the sender; what goes wrong there is said by the request.
        let driving = tokio::spawn(async { drop(connection.await) });
        let request = Request::get(&self.path)
            .header(HOST, host)
            .header(
                USER_AGENT,
                concat!("pooler-top/", env!("CARGO_PKG_VERSION")),
            )
            .body(Empty::<Bytes>::new())
            .map_err(|e| self.silent(e))?;
        let answer = sender.send_request(request).await;
        let answer = answer.map_err(|e| self.silent(e))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_LEN_MAX);
        let body = body.collect().await.map_err(|e| self.nonsense(e))?;
        driving.abort();
        let body = body.to_bytes();
        if !status.is_success() {
            let text = String::from_utf8_lossy(&body);
            return Err(FetchError::Refused {
                target: self.url(),
                status: status.to_string(),
                text: crate::status::name(text.lines().next().unwrap_or_default()),
            });
        }
        serde_json::from_slice(&body).map_err(|e| self.nonsense(e))
    }

    fn nonsense(&self, why: impl std::fmt::Display) -> FetchError {
        FetchError::Nonsense {
            target: self.url(),
            why: why.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name that the pooler does not know as its own gets there all the same: we are no browser.
    #[tokio::test]
    async fn a_pooler_that_wants_another_name_is_asked_by_its_address() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
        let listener = listener.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let served = tokio::spawn(async move {
            let body = serde_json::to_string(&Status::default()).expect("JSON");
            let mut heads = Vec::new();
            for answer in [
                "421 x\r\n\r\nby another name".to_owned(),
                format!("200 x\r\n\r\n{body}"),
            ] {
                let (mut stream, _) = listener.accept().await.expect("a client");
                let mut head = vec![0; 4096];
                let n = stream.read(&mut head).await.expect("a request");
                heads.push(String::from_utf8_lossy(&head[..n]).to_lowercase());
                let answer = format!("HTTP/1.0 {answer}");
                stream.write_all(answer.as_bytes()).await.expect("sent");
            }
            heads
        });
        let target = Target::parse(&format!("localhost:{port}")).expect("good");
        target.fetch().await.expect("a status");
        let heads = served.await.expect("no panic");
        assert!(
            heads[0].contains(&format!("host: localhost:{port}\r\n")),
            "{heads:?}"
        );
        assert!(
            heads[1].contains(&format!("host: 127.0.0.1:{port}\r\n")),
            "{heads:?}"
        );
    }

    #[test]
    fn urls_of_a_pooler() {
        for (url, asked, host, port) in [
            (
                "http://127.0.0.1:9930",
                "http://127.0.0.1:9930/status.json",
                "127.0.0.1",
                9930,
            ),
            ("db:9930", "http://db:9930/status.json", "db", 9930),
            ("http://db", "http://db/status.json", "db", 80),
            ("[::1]:9930/", "http://[::1]:9930/status.json", "::1", 9930),
            (
                "http://ops/pooler/a/",
                "http://ops/pooler/a/status.json",
                "ops",
                80,
            ),
            (
                "http://ops:1/status.json",
                "http://ops:1/status.json",
                "ops",
                1,
            ),
        ] {
            let target = Target::parse(url).expect(url);
            assert_eq!(target.url(), asked);
            assert_eq!((&*target.host, target.port), (host, port));
        }
        for url in ["https://db:9930", "http://", "http://a:b", "a b", "x@db:1"] {
            let error = Target::parse(url).expect_err(url);
            assert!(matches!(error, FetchError::Url { .. }), "{error}");
        }
    }
}
