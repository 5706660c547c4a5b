//! Who gets a link, and with which credential (docs/protocol.md §3.5, §3.6).

use sealwire_protocol::close::CloseCode;
use sealwire_protocol::error::{LinkError, NotAuthorised};
use sealwire_protocol::handshake::{Credential, Presented, UnverifiedPeer};

use super::pair::{NOW, Pair, key};
use super::proofs::device_proof;
use super::rogue::{RogueDevice, finish_secret};

const CODE: &[u8] = b"0123456789abcdef";

/// Finish of an honest device with this credential, at a relay that had a token in the upgrade request or not.
fn present(
    pair: &Pair,
    credential: Credential<'_>,
    upgrade: Option<&[u8]>,
) -> Result<UnverifiedPeer, LinkError> {
    let upgrade = upgrade.map(|token| pair.verified(token));
    let (device, hello) = pair.hello();
    let (relay, accept) = pair.accept_after_upgrade(&hello, upgrade.as_ref()).unwrap();
    let (_, finish) = pair.finish(device, &accept, credential).unwrap();
    relay.on_finish(&finish)
}

/// The same from a device that sends any kind and credential.
fn present_raw(
    kind: u8,
    credential: &[u8],
    upgrade: Option<&[u8]>,
) -> Result<UnverifiedPeer, LinkError> {
    let pair = Pair::new();
    let upgrade = upgrade.map(|token| pair.verified(token));
    let device = RogueDevice::new();
    let (relay, accept) = pair
        .accept_after_upgrade(&device.hello, upgrade.as_ref())
        .unwrap();
    let (mut device, _) = device.on_accept(&accept);
    let proof = device_proof(&pair, &device, credential).sign(&pair.device_key, NOW);
    let secret = finish_secret(
        kind,
        pair.device_key.public().as_bytes(),
        proof.as_bytes(),
        credential,
    );
    relay.on_finish(&device.finish(secret))
}

#[test]
fn each_credential_arrives_as_what_it_is() {
    let pair = Pair::new();
    let token = pair.token();
    let shown = |credential, upgrade: Option<&[u8]>| {
        let peer = present(&pair, credential, upgrade)
            .unwrap()
            .prove(NOW)
            .unwrap();
        match peer.credential() {
            Presented::Token(bytes) => [b"token ", bytes].concat(),
            Presented::Invite(bytes) => [b"invite ", bytes].concat(),
            Presented::Exchange(bytes) => [b"exchange ", bytes].concat(),
            Presented::UpgradeToken => b"upgrade".to_vec(),
            Presented::Renewal => b"renewal".to_vec(),
        }
    };
    let as_token = [b"token ", token.as_slice()].concat();
    assert_eq!(shown(Credential::Token(&token), None), as_token);
    assert_eq!(shown(Credential::Token(&token), Some(&token)), b"upgrade");
    assert_eq!(
        shown(Credential::UpgradeToken(&token), Some(&token)),
        b"upgrade"
    );
    assert_eq!(
        shown(Credential::Invite(CODE), None),
        [b"invite ", CODE].concat()
    );
    assert_eq!(shown(Credential::Renewal, None), b"renewal");
    assert_eq!(
        shown(Credential::Exchange(b"a.b.c"), None),
        b"exchange a.b.c"
    );
}

/// docs/protocol.md §3.6
#[test]
fn invite_renewal_and_exchange_are_authorised_by_the_token_that_the_relay_minted() {
    let pair = Pair::new();
    let minted = pair.verified(&pair.token());
    for credential in [
        Credential::Invite(CODE),
        Credential::Renewal,
        Credential::Exchange(b"a.b.c"),
    ] {
        let peer = present(&pair, credential, None)
            .unwrap()
            .prove(NOW)
            .unwrap();
        assert_eq!(peer.authorise(minted.clone()).unwrap().token(), &minted);
    }
}

/// docs/protocol.md §3.5: `cnf`
#[test]
fn relay_refuses_token_of_another_device() {
    let pair = Pair::new();
    let (token, device) = (key(99).thumbprint(), pair.device_key.thumbprint());
    let stolen = pair.token_for(token);
    let peer = present(&pair, Credential::Token(&stolen), None)
        .unwrap()
        .prove(NOW)
        .unwrap();
    let error = peer.authorise(pair.verified(&stolen)).unwrap_err();
    assert_eq!(
        error,
        NotAuthorised::TokenOfAnotherDevice { token, device }.into()
    );
    assert_eq!(error.close_code(), CloseCode::NotAuthorised);
}

/// docs/protocol.md §3.5: `cnf` holds for minted tokens as well
#[test]
fn relay_refuses_a_minted_token_of_another_device() {
    let pair = Pair::new();
    let (token, device) = (key(99).thumbprint(), pair.device_key.thumbprint());
    let minted = pair.verified(&pair.token_for(token));
    for credential in [
        Credential::Invite(CODE),
        Credential::Renewal,
        Credential::Exchange(b"a.b.c"),
    ] {
        let peer = present(&pair, credential, None)
            .unwrap()
            .prove(NOW)
            .unwrap();
        let error = peer.authorise(minted.clone()).unwrap_err();
        assert_eq!(
            error,
            NotAuthorised::TokenOfAnotherDevice { token, device }.into()
        );
    }
}

/// docs/protocol.md §3.5: the token that authorises is the one whose hash was proved
#[test]
fn relay_refuses_another_token_than_the_presented_one() {
    let pair = Pair::new();
    let presented = pair.token();
    let another = pair.token_of(
        "https://issuer.example",
        "mallory",
        pair.device_key.thumbprint(),
    );
    for (credential, upgrade) in [
        (Credential::Token(&presented), None),
        (
            Credential::UpgradeToken(&presented),
            Some(presented.as_slice()),
        ),
    ] {
        let peer = present(&pair, credential, upgrade)
            .unwrap()
            .prove(NOW)
            .unwrap();
        assert_eq!(
            peer.authorise(pair.verified(&another)).unwrap_err(),
            NotAuthorised::AnotherToken.into()
        );
    }
}

/// docs/protocol.md §3.5
#[test]
fn relay_refuses_a_finish_that_does_not_go_with_the_upgrade_token() {
    let pair = Pair::new();
    let token = pair.token();
    let another = pair.token_of(
        "https://issuer.example",
        "mallory",
        pair.device_key.thumbprint(),
    );
    for credential in [
        Credential::Token(&another),
        Credential::Invite(CODE),
        Credential::Renewal,
        Credential::Exchange(&token),
    ] {
        let error = present(&pair, credential, Some(&token)).unwrap_err();
        assert_eq!(error, NotAuthorised::CredentialMismatch.into());
    }
}

/// docs/protocol.md §3.5: `ath` is the token's hash also when the credential is empty
#[test]
fn relay_refuses_a_proof_for_another_token_than_the_upgrade_token() {
    let pair = Pair::new();
    let another = pair.token_of(
        "https://issuer.example",
        "mallory",
        pair.device_key.thumbprint(),
    );
    let peer = present(
        &pair,
        Credential::UpgradeToken(&another),
        Some(&pair.token()),
    )
    .unwrap();
    assert!(matches!(
        peer.prove(NOW),
        Err(LinkError::NotAuthorised(NotAuthorised::DeviceProof(_)))
    ));
}

/// docs/protocol.md §3.5, §3.7
#[test]
fn relay_refuses_an_empty_token_without_one_in_the_upgrade() {
    for kind in [0, 3] {
        assert_eq!(
            present_raw(kind, b"", None).unwrap_err(),
            NotAuthorised::CredentialMissing.into()
        );
    }
    let pair = Pair::new();
    let upgrade = Credential::UpgradeToken(b"never sent");
    assert_eq!(
        present(&pair, upgrade, None).unwrap_err(),
        NotAuthorised::CredentialMissing.into()
    );
}

/// docs/protocol.md §3.6: 16 to 64 bytes, or nothing
#[test]
fn relay_refuses_invites_and_renewals_of_another_form() {
    for (kind, credential) in [
        (1, &[0_u8; 65][..0]),
        (1, &[0; 15]),
        (1, &[0; 65]),
        (2, &[0; 1]),
        (2, &[0; 16]),
    ] {
        assert_eq!(
            present_raw(kind, credential, None).unwrap_err(),
            NotAuthorised::CredentialForm.into()
        );
    }
}

/// docs/protocol.md §3.5, §3.7: `ath` is the hash of the provider's token
#[test]
fn relay_refuses_a_proof_for_another_token_than_the_exchanged_one() {
    let pair = Pair::new();
    let device = RogueDevice::new();
    let (relay, accept) = pair.accept(&device.hello).unwrap();
    let (mut device, _) = device.on_accept(&accept);
    let proof = device_proof(&pair, &device, b"d.e.f").sign(&pair.device_key, NOW);
    let secret = finish_secret(
        3,
        pair.device_key.public().as_bytes(),
        proof.as_bytes(),
        b"a.b.c",
    );
    let peer = relay.on_finish(&device.finish(secret)).unwrap();
    assert!(matches!(
        peer.prove(NOW),
        Err(LinkError::NotAuthorised(NotAuthorised::DeviceProof(_)))
    ));
}

#[test]
fn debug_of_a_peer_does_not_show_its_credential() {
    let pair = Pair::new();
    for (credential, name) in [
        (Credential::Invite(CODE), "Invite(..)"),
        (Credential::Exchange(CODE), "Exchange(..)"),
    ] {
        let peer = present(&pair, credential, None)
            .unwrap()
            .prove(NOW)
            .unwrap();
        let shown = format!("{peer:?} {:?} {credential:?}", peer.credential());
        assert!(
            shown.contains(name) && !shown.contains("0123") && !shown.contains("48, 49"),
            "{shown}"
        );
    }
}
