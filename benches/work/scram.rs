//! The messages of a SCRAM-SHA-256 exchange without the derivation of keys, which is made once a
//! password and is all hashing.

use pooler_protocol::auth::{
    ChannelBinding, Mechanism, ScramClient, ScramKeys, ScramServer, ServerProven, Verifier, derive,
};

/// A client's keys and the verifier that fits them.
pub(crate) fn account() -> (ScramKeys, Verifier) {
    let keys = derive(b"a password", b"sixteen bytes of", 4096);
    let verifier = keys.verifier();
    (keys, verifier)
}

/// All four messages, written by one side and read by the other.
pub(crate) fn exchange(keys: &ScramKeys, verifier: &Verifier) -> ServerProven {
    let offered = [Mechanism::ScramSha256.name()];
    let client = ScramClient::new(&offered, ChannelBinding::Unavailable, &[7; 18])
        .expect("a common mechanism");
    let server = ScramServer::new(verifier.clone(), ChannelBinding::Unavailable);
    let server = server
        .client_first(client.mechanism(), client.message(), &[8; 18])
        .expect("a first message");
    let challenge = client.server_first(server.message()).expect("a challenge");
    let client = challenge.client_final(keys).expect("the keys fit");
    let accepted = server.client_final(client.message()).expect("a proof");
    client
        .server_final(accepted.message.as_bytes())
        .expect("the server's proof")
}
