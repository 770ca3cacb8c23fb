//! Before and during login.

use crate::support::{Rig, query};

#[test]
fn a00_a_client_is_served() {
    let rig = Rig::new();
    let mut client = rig.login();
    client.send(&[query("SELECT 1, NULL, 'a b'")]);
    client.expect("T D(1|NULL|a b) C(SELECT 1) Z(I)");
    rig.assert_sound();
}
