//! tokio-postgres with rustls: what scripts/auth-drivers.sh asks, a login a line of standard input, as libpq's keywords.

use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio_postgres::config::{ChannelBinding, SslMode, SslNegotiation};
use tokio_postgres_rustls::MakeRustlsConnect;

type Case = HashMap<String, String>;
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What a mode of libpq's looks at in the server's certificate.
#[derive(Debug)]
struct Check {
    /// None: nothing.
    chain: Option<Arc<WebPkiServerVerifier>>,
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Check {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp, now) {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.name => Ok(ServerCertVerified::assertion()),
            checked => checked,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn tls(case: &Case) -> Outcome<MakeRustlsConnect> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mode = case["sslmode"].as_str();
    let chain = match mode {
        "verify-ca" | "verify-full" => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(&case["sslrootcert"])?)?;
            Some(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build()?)
        }
        _ => None,
    };
    let check = Check { chain, name: mode == "verify-full", provider: Arc::clone(&provider) };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(check));
    let mut config = match case.get("sslcert") {
        Some(certificate) => {
            let chain = vec![CertificateDer::from_pem_file(certificate)?];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(&case["sslkey"])?)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"postgresql".to_vec()];
    Ok(MakeRustlsConnect::new(config))
}

async fn log_in(case: &Case) -> Outcome<String> {
    let mut config = tokio_postgres::Config::new();
    config.host(&case["host"]).port(case["port"].parse()?).dbname(&case["dbname"]);
    config.user(&case["user"]).password(&case["password"]);
    config.connect_timeout(Duration::from_secs(20));
    config.ssl_mode(match case["sslmode"].as_str() {
        "disable" => SslMode::Disable,
        "prefer" => SslMode::Prefer,
        _ => SslMode::Require,
    });
    if case.contains_key("channel_binding") {
        config.channel_binding(ChannelBinding::Require);
    }
    if case.contains_key("sslnegotiation") {
        config.ssl_negotiation(SslNegotiation::Direct);
    }
    let (client, connection) = config.connect(tls(case)?).await?;
    tokio::spawn(async move {
        let _ended = connection.await;
    });
    let row = client.query_one("SELECT current_user::text", &[]).await?;
    Ok(row.get(0))
}

fn main() -> Outcome<()> {
    if std::env::args().any(|argument| argument == "--version") {
        println!("tokio-postgres 0.7");
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        let case: Case = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let (name, expected) = (&case["name"], case["expect"].as_str());
        let (got, text) = match runtime.block_on(log_in(&case)) {
            Ok(user) => ("ok", user),
            Err(e) => ("refused", format!("{e:?}").replace('\n', " ")),
        };
        match got == expected {
            true if got == "ok" && text != case["user"] => println!("FAILED {name} logged in as {text}"),
            true => println!("ok {name}"),
            false => println!("FAILED {name} is {got}: {text}"),
        }
    }
    Ok(())
}
