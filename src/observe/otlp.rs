//! Spans to a collector: OTLP over HTTP in its binary form (OpenTelemetry's "OTLP Specification", "OTLP/HTTP").
//!
//! One connection, kept while it lasts. Everything is bounded: [`POST_MAX`] an attempt, [`ANSWER_LEN_MAX`] bytes of
//! an answer. What an answer means for the spans is said as [`Answer`]; when to try again is the caller's business.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one attempt may take, connecting included.
const POST_MAX: Duration = Duration::from_secs(10);

/// The longest answer that is read, in bytes.
const ANSWER_LEN_MAX: usize = 64 * 1024;

/// The longest that is waited because the collector asks for it.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(30);

const PROTOBUF: HeaderValue = HeaderValue::from_static("application/x-protobuf");

/// Where spans go.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// `http://host:port/v1/traces`.
    pub(super) uri: Uri,
    /// Sent along; their values are never shown.
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// By what a collector's certificate is judged, for https.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// What became of an attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Taken, but for so many spans.
    Taken {
        /// Spans that the collector refused.
        rejected: u64,
    },
    /// Not now: to be tried again, not before so long.
    Later {
        /// As the collector says, if it does.
        after: Option<Duration>,
        /// In words.
        why: String,
    },
    /// Never.
    Refused(String),
}

/// A connection to the collector that was last sent something.
#[derive(Debug, Default)]
pub(super) struct Link(Option<(Arc<Target>, Sender)>);

impl Link {
    /// Sends `body`, an encoded `ExportTraceServiceRequest`, by a connection to `target` and no other. Dropped midway,
    /// the connection is closed.
    pub(super) async fn post(&mut self, target: &Arc<Target>, body: Bytes) -> Answer {
        let known = self.0.take().filter(|(its, _)| Arc::ptr_eq(its, target));
        let link = known.map(|(_, link)| link);
        match tokio::time::timeout(POST_MAX, exchange(link, target, body)).await {
            Ok(Ok((link, answer))) => {
                self.0 = Some((Arc::clone(target), link));
                answer
            }
            Ok(Err(why)) => Answer::Later { after: None, why },
            Err(_elapsed) => Answer::Later {
                after: None,
                why: format!("no answer within {POST_MAX:?}"),
            },
        }
    }

    /// Closes it.
    pub(super) fn close(&mut self) {
        self.0 = None;
    }
}

type Sender = SendRequest<Full<Bytes>>;

async fn exchange(
    link: Option<Sender>,
    target: &Target,
    body: Bytes,
) -> Result<(Sender, Answer), String> {
    let mut link = match link.filter(|link| !link.is_closed()) {
        Some(link) => link,
        None => connect(target).await?,
    };
    link.ready().await.map_err(|e| e.to_string())?;
    let request = request(target, body)?;
    let response = link
        .send_request(request)
        .await
        .map_err(|e| e.to_string())?;
    let answer = read(response).await;
    Ok((link, answer))
}

fn request(target: &Target, body: Bytes) -> Result<Request<Full<Bytes>>, String> {
    let host = target
        .uri
        .authority()
        .map_or("", |authority| authority.as_str());
    let path = target
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(HOST, host)
        .header(CONTENT_TYPE, PROTOBUF)
        .header(USER_AGENT, concat!("pooler/", env!("CARGO_PKG_VERSION")));
    for (name, value) in &target.headers {
        request = request.header(name, value);
    }
    request.body(Full::new(body)).map_err(|e| e.to_string())
}

async fn connect(target: &Target) -> Result<Sender, String> {
    let host = target.uri.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_https = target.uri.scheme_str() == Some("https");
    let port = target
        .uri
        .port_u16()
        .unwrap_or(if is_https { 443 } else { 80 });
    let stream = TcpStream::connect((bare, port)).await;
    let stream = stream.map_err(|e| format!("cannot connect: {e}"))?;
    // A request is one write, and its answer is waited for.
    let _set = stream.set_nodelay(true);
    if !is_https {
        return shake_hands(stream).await;
    }
    let config = target.tls.clone().ok_or("nobody is trusted for https")?;
    let name = ServerName::try_from(bare.to_owned()).map_err(|e| e.to_string())?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    shake_hands(stream.map_err(|e| format!("TLS: {e}"))?).await
}

async fn shake_hands<S>(stream: S) -> Result<Sender, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream))
        .await
        .map_err(|e| e.to_string())?;
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!("the connection to the collector of traces ended: {e}");
        }
    });
    Ok(sender)
}

/// By the status, as the specification has it ("OTLP/HTTP Response").
async fn read(response: Response<hyper::body::Incoming>) -> Answer {
    let status = response.status();
    let after = response.headers().get(RETRY_AFTER).and_then(retry_after);
    let body = Limited::new(response.into_body(), ANSWER_LEN_MAX)
        .collect()
        .await;
    let body = body
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    if status.is_success() {
        return Answer::Taken {
            rejected: rejected(body),
        };
    }
    let why = format!("HTTP status {status}");
    match status {
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Answer::Later { after, why },
        _ => Answer::Refused(why),
    }
}

/// A number of seconds; a date is not looked at, and waited for as if nothing was said.
fn retry_after(value: &HeaderValue) -> Option<Duration> {
    let seconds: u64 = value.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX))
}

/// Of an answer that cannot be read nothing is known, and all was taken.
fn rejected(body: Bytes) -> u64 {
    let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let rejected = answer
        .partial_success
        .map_or(0, |partial| partial.rejected_spans);
    u64::try_from(rejected).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
    use rustls::{RootCertStore, ServerConfig};
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;

    fn trusting(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder
            .with_safe_default_protocol_versions()
            .expect("versions");
        Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
    }

    /// One that takes everything, by https; and its port.
    async fn collector(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> u16 {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder
            .with_safe_default_protocol_versions()
            .expect("versions");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let chain = vec![made.cert.der().clone()];
        let config = builder
            .with_no_client_auth()
            .with_single_cert(chain, key.into());
        let acceptor = TlsAcceptor::from(Arc::new(config.expect("a pair")));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(stream) = acceptor.accept(stream).await else {
                    continue;
                };
                let yes = service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let _body = request.into_body().collect().await?;
                    Ok::<_, hyper::Error>(Response::new(Full::new(Bytes::new())))
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), yes));
            }
        });
        port
    }

    #[test]
    fn https_is_spoken_with_those_who_are_trusted_alone() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("an event loop").block_on(async {
            let make = || rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]);
            let (made, other) = (make().expect("a pair"), make().expect("a pair"));
            let port = collector(&made).await;
            let target = |uri: String, certificate: &CertificateDer<'static>| {
                Arc::new(Target {
                    uri: uri.parse().expect("a URL"),
                    headers: Vec::new(),
                    tls: Some(trusting(certificate.clone())),
                })
            };
            let uri = format!("https://localhost:{port}/v1/traces");
            let mut link = Link::default();
            let friend = target(uri.clone(), made.cert.der());
            for _twice in 0..2 {
                let answer = link.post(&friend, Bytes::from_static(b"x")).await;
                assert_eq!(answer, Answer::Taken { rejected: 0 });
            }
            for stranger in [
                target(uri, other.cert.der()),
                // The certificate is in another name.
                target(
                    format!("https://127.0.0.1:{port}/v1/traces"),
                    made.cert.der(),
                ),
            ] {
                // The connection that is there is the friend's.
                let answer = link.post(&stranger, Bytes::new()).await;
                let Answer::Later { why, .. } = answer else {
                    panic!("{answer:?}");
                };
                assert!(why.contains("TLS"), "{why}");
            }
        });
    }

    #[test]
    fn a_collector_makes_nobody_wait_for_ever() {
        let after = |text: &'static str| retry_after(&HeaderValue::from_static(text));
        assert_eq!(after("3"), Some(Duration::from_secs(3)));
        assert_eq!(after("99999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), None);
        assert_eq!(after("-1"), None);
    }
}
