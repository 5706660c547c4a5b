//! Keys in a keyring that a test controls, and in the system's where there is one.

use keyring_core::mock;

use super::*;
use crate::store::key::Source;
use crate::store::vault::Vault;
use crate::store::{StoreError, StoreKey};
use crate::testing::SharedStore;

fn keyring(store: &Arc<CredentialStore>) -> Keyring {
    Keyring {
        service: "sealwire-test".into(),
        account: "alice".into(),
        store: Some(Arc::clone(store)),
    }
}

fn mock() -> Arc<CredentialStore> {
    mock::Store::new().unwrap()
}

fn entry(store: &Arc<CredentialStore>) -> Entry {
    Entry::new_in_store(store, "sealwire-test", "alice").unwrap()
}

/// Lets the next use of the entry fail.
fn fail(store: &Arc<CredentialStore>, error: Error) {
    let entry = entry(store);
    let credential = entry.as_any().downcast_ref::<mock::Cred>().unwrap();
    credential.set_error(error);
}

#[test]
fn key_is_made_once_for_a_new_store_and_kept() {
    let store = mock();
    let key = keyring(&store).key(true).unwrap();
    assert_ne!(*key, [0; 32]);
    assert_eq!(entry(&store).get_secret().unwrap(), key.as_slice());
    for new in [false, true] {
        assert_eq!(*keyring(&store).key(new).unwrap(), *key);
    }
}

#[test]
fn accounts_have_keys_of_their_own() {
    let store = mock();
    let one = keyring(&store).key(true).unwrap();
    let other = Keyring {
        account: "bob".into(),
        ..keyring(&store)
    };
    assert!(matches!(other.key(false), Err(KeyringError::NoKey)));
    assert_ne!(*other.key(true).unwrap(), *one);
    assert_eq!(*keyring(&store).key(false).unwrap(), *one);
}

#[test]
fn lost_key_is_not_replaced_by_a_new_one() {
    let store = mock();
    assert!(matches!(
        keyring(&store).key(false),
        Err(KeyringError::NoKey)
    ));
    assert!(matches!(entry(&store).get_secret(), Err(Error::NoEntry)));
}

#[test]
fn entry_that_is_no_key_is_refused_and_left_alone() {
    let store = mock();
    for secret in [&b"password of something else"[..], &[1; 31], &[1; 33], b""] {
        entry(&store).set_secret(secret).unwrap();
        for new in [false, true] {
            assert!(matches!(
                keyring(&store).key(new),
                Err(KeyringError::NotAKey)
            ));
        }
        assert_eq!(entry(&store).get_secret().unwrap(), secret);
    }
}

#[test]
fn locked_or_absent_keyring_is_an_error_and_no_key_is_made() {
    let store = mock();
    fail(&store, Error::NoStorageAccess("locked".into()));
    assert!(matches!(
        keyring(&store).key(true),
        Err(KeyringError::NoAccess(_))
    ));
    fail(&store, Error::PlatformFailure("no service".into()));
    assert!(matches!(
        keyring(&store).key(true),
        Err(KeyringError::Unavailable(_))
    ));
    fail(&store, Error::Ambiguous(Vec::new()));
    assert!(matches!(
        keyring(&store).key(true),
        Err(KeyringError::Ambiguous)
    ));
    assert!(matches!(entry(&store).get_secret(), Err(Error::NoEntry)));
}

#[test]
fn errors_say_what_to_do_and_show_no_secret() {
    let store = mock();
    let secret = b"secret that is not a key".to_vec();
    fail(&store, Error::BadEncoding(secret.clone()));
    let refused = keyring(&store).key(false).unwrap_err();
    let said = format!("{refused} {refused:?}");
    assert!(said.contains("choose another account"), "{said}");
    fail(&store, Error::BadDataFormat(secret, "secret".into()));
    let refused = keyring(&store).key(false).unwrap_err();
    let said = format!("{refused} {refused:?}");
    assert!(
        !said.contains("secret") && !said.contains("115, 101"),
        "{said}"
    );
    assert!(
        KeyringError::NoAccess("locked".into())
            .to_string()
            .contains("unlock it")
    );
    assert!(
        KeyringError::Unavailable("none".into())
            .to_string()
            .contains("key file")
    );
}

#[test]
fn store_opens_under_a_key_of_the_keyring_and_under_no_other() {
    let key = |store| StoreKey {
        source: Source::Keyring(keyring(store)),
    };
    let (store, other) = (mock(), mock());
    assert_eq!(format!("{:?}", key(&store)), "StoreKey(keyring)");
    let rows = SharedStore::default();
    let open = |key| Vault::open(Box::new(rows.clone()), &key, &mut rand::rng()).map(drop);
    open(key(&store)).unwrap();
    open(key(&store)).unwrap();
    let reopened = open(key(&other));
    assert!(matches!(
        reopened,
        Err(StoreError::Keyring(KeyringError::NoKey))
    ));
    keyring(&other).key(true).unwrap();
    let reopened = open(key(&other));
    assert!(matches!(reopened, Err(StoreError::WrongKey)));
}

/// In a session of its own: `dbus-run-session -- sh -c 'printf x | gnome-keyring-daemon --unlock; cargo test …'`.
#[test]
#[ignore = "needs a keyring that is unlocked, and writes to it"]
fn system_keyring_keeps_a_key() {
    let keyring = || Keyring {
        service: format!("sealwire-test-{}", std::process::id()),
        account: "alice".into(),
        store: None,
    };
    assert!(matches!(keyring().key(false), Err(KeyringError::NoKey)));
    let key = keyring().key(true).unwrap();
    assert_eq!(*keyring().key(false).unwrap(), *key);
    let store = system_store().unwrap();
    let entry = Entry::new_in_store(&store, &keyring().service, "alice").unwrap();
    entry.delete_credential().unwrap();
    assert!(matches!(keyring().key(false), Err(KeyringError::NoKey)));
}

/// In a session of its own where nobody can be asked to unlock it: `dbus-run-session -- cargo test …`.
#[test]
#[ignore = "needs a keyring that is locked"]
fn system_keyring_that_is_locked_says_so() {
    let keyring = Keyring {
        service: "sealwire-test".into(),
        account: "alice".into(),
        store: None,
    };
    let refused = keyring.key(true).unwrap_err();
    assert!(matches!(refused, KeyringError::NoAccess(_)), "{refused:?}");
}

/// With `DBUS_SESSION_BUS_ADDRESS` naming nothing.
#[test]
#[ignore = "needs that there is no keyring"]
fn system_without_a_keyring_says_so() {
    let keyring = Keyring {
        service: "sealwire-test".into(),
        account: "alice".into(),
        store: None,
    };
    let refused = keyring.key(true).unwrap_err();
    assert!(
        matches!(refused, KeyringError::Unavailable(_)),
        "{refused:?}"
    );
}
