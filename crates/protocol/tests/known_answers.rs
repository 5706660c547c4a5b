//! The examples that the RFCs print, run against this crate's own types.
#![expect(
    clippy::unwrap_used,
    reason = "tests and what they call fail by panicking"
)]

use hkdf::Hkdf;
use sealwire_protocol::base64url;
use sealwire_protocol::crypto::{Label, LowOrder, Prk, Secret, X25519PublicKey, X25519Secret};
use sealwire_protocol::json::Object;
use sealwire_protocol::jws::{JwsError, JwsPart, JwtType, UnverifiedJws};
use sealwire_protocol::key::{BadSignature, JwkError, PublicKey, PublicKeyError, Seed, SigningKey};
use sha2::Sha256;

/// RFC 7748 §5.2
#[test]
fn rfc_7748_scalar_multiplication() {
    let cases = [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ];
    for (scalar, point, product) in cases {
        assert_eq!(x25519(hex(scalar), hex(point)).unwrap(), hex(product));
    }
}

/// RFC 7748 §5.2: each result is the next scalar, each scalar the next point.
#[test]
fn rfc_7748_iterated_scalar_multiplication() {
    let (mut scalar, mut point) = ([0; 32], [0; 32]);
    (scalar[0], point[0]) = (9, 9);
    for round in 1..=1000 {
        (scalar, point) = (x25519(scalar, point).unwrap(), scalar);
        if round == 1 {
            assert_eq!(
                scalar,
                hex("422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079")
            );
        }
    }
    assert_eq!(
        scalar,
        hex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
    );
}

/// RFC 7748 §6.1, and RFC 8037 A.6, which has the same keys.
#[test]
fn rfc_7748_and_rfc_8037_key_agreement() {
    let alice = secret("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
    let bob = secret("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let alice_public = alice.public_key();
    let bob_public = bob.public_key();
    assert_eq!(
        base64url::encode(alice_public.as_bytes()),
        "hSDwCYkwp1R0i33ctD73Wg2_Og0mOBr066SpjqqbTmo"
    );
    assert_eq!(
        base64url::encode(bob_public.as_bytes()),
        "3p7bfXt9wbTTW2HC7OQ1Nz-DQ8hbeGdNrfx-FG-IK08"
    );
    let shared = hex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742");
    assert_eq!(alice.diffie_hellman(&bob_public).unwrap().expose(), &shared);
    assert_eq!(bob.diffie_hellman(&alice_public).unwrap().expose(), &shared);
}

/// RFC 7748 §6.1, docs/protocol.md §1.3: the points of order 1, 2, 4 and 8, on the curve and its twist, in each of
/// their encodings.
#[test]
fn x25519_refuses_every_low_order_point() {
    let points = [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    ];
    for point in points {
        let mut point: [u8; 32] = hex(point);
        for _ in 0..2 {
            assert_eq!(x25519([0x42; 32], point), Err(LowOrder), "{point:02x?}");
            point[31] ^= 0x80; // the bit that X25519 ignores
        }
    }
}

/// RFC 8032 §7.1: TEST 1, 2, 3 and SHA(abc)
#[test]
fn rfc_8032_signatures() {
    let cases = [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
        (
            "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
            "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
        ),
    ];
    for (seed, public, message, signature) in cases {
        let key = SigningKey::from_seed(&Seed::new(hex(seed)));
        let (message, signature) = (bytes(message), hex(signature));
        assert_eq!(key.public().as_bytes(), &hex(public));
        assert_eq!(key.sign(&message), signature);
        assert_eq!(key.public().verify(&message, &signature), Ok(()));
        let mut longer = message.clone();
        longer.push(0);
        assert_eq!(key.public().verify(&longer, &signature), Err(BadSignature));
    }
}

/// RFC 8032 §5.1.7, docs/protocol.md §1.3: `S` plus the order of the group verifies the same equation.
#[test]
fn ed25519_refuses_a_signature_with_s_out_of_range() {
    let order = hex::<32>("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let key = SigningKey::from_seed(&Seed::new([1; 32]));
    let mut signature = key.sign(b"message");
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let [high, low] = (u16::from(*byte) + u16::from(add) + carry).to_be_bytes();
        (*byte, carry) = (low, u16::from(high));
    }
    assert_eq!(
        key.public().verify(b"message", &signature),
        Err(BadSignature)
    );
}

/// docs/protocol.md §1.3: keys of small order, and a second encoding of a point
#[test]
fn ed25519_refuses_weak_and_non_canonical_keys() {
    let cases = [
        (
            "0100000000000000000000000000000000000000000000000000000000000000",
            PublicKeyError::SmallOrder,
        ),
        (
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            PublicKeyError::SmallOrder,
        ),
        (
            "0000000000000000000000000000000000000000000000000000000000000000",
            PublicKeyError::SmallOrder,
        ),
        (
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            PublicKeyError::SmallOrder,
        ),
        (
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            PublicKeyError::SmallOrder,
        ),
        (
            "f0ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            PublicKeyError::NotCanonical,
        ),
        (
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            PublicKeyError::NotCanonical,
        ),
        (
            "0200000000000000000000000000000000000000000000000000000000000000",
            PublicKeyError::NotAPoint,
        ),
    ];
    for (key, error) in cases {
        assert_eq!(PublicKey::from_bytes(&hex(key)), Err(error), "{key}");
    }
}

/// RFC 5869 A.1, A.2 and A.3. Our Expand takes labels only, so that the reference expands what our Extract gave.
#[test]
fn rfc_5869_extract() {
    let range = |from: u8, to: u8| (from..=to).collect::<Vec<u8>>();
    let cases = [
        (
            vec![0x0b; 22],
            range(0x00, 0x0c),
            range(0xf0, 0xf9),
            "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5",
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
        ),
        (
            range(0x00, 0x4f),
            range(0x60, 0xaf),
            range(0xb0, 0xff),
            "06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244",
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87",
        ),
        (
            vec![0x0b; 22],
            vec![],
            vec![],
            "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04",
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
        ),
    ];
    for (ikm, salt, info, prk, okm) in cases {
        let extracted = Prk::extract(&salt, &[&ikm]);
        assert_eq!(extracted.as_secret().expose(), &hex(prk));
        let mut expanded = vec![0; okm.len() / 2];
        Hkdf::<Sha256>::from_prk(extracted.as_secret().expose())
            .unwrap()
            .expand(&info, &mut expanded)
            .unwrap();
        assert_eq!(expanded, bytes(okm));
    }
}

/// docs/protocol.md §1.3: `info = vec8(label) || vec8(context)`. Computed with Python's `hmac` by RFC 5869 §2.3.
#[test]
fn expand_follows_rfc_5869_with_label_and_context() {
    let ikm: Vec<u8> = (0..96).collect();
    let prk = Prk::extract(b"sealwire/1 session", &[&ikm]);
    let th: [u8; 32] = core::array::from_fn(|at| u8::try_from(at).unwrap());
    assert_eq!(
        prk.as_secret().expose(),
        &hex("f49145b6fb23dbf0d0d4db0370f30b95ade1faa35f957deadd23bc7e2c533c0d")
    );
    assert_eq!(
        prk.expand(Label::new("sealwire/1 session id"), &th)
            .expose(),
        &hex::<16>("e1a33718c65c6fbe0b7d606511be4ae3")
    );
    assert_eq!(
        prk.expand(Label::new("sealwire/1 session root"), &th)
            .expose(),
        &hex::<32>("bfa506ee7132a82e271b766d749660a08d778e69271dcf4271e8ed04216a0f11")
    );
    assert_eq!(
        prk.expand(Label::new("sealwire/1 link record iv"), b"")
            .expose(),
        &hex::<12>("483c63997fb0a1779fab1c5a")
    );
    assert_eq!(
        prk.expand(Label::new("sealwire/1 session ratchet"), b"")
            .expose(),
        &hex::<64>(
            "dcb1e37ff76c827124ee762185c86c3335d167b261fbac1ccd5b156a834e894bd65d09038c6bcd19d985fee31ca9823a1f17c6322161204775e9b799d5c2bdbf"
        )
    );
}

/// RFC 8037 A.1 to A.3 (RFC 7638 §3): the key, its public half as a JWK, and its thumbprint
#[test]
fn rfc_8037_jwk_and_thumbprint() {
    let seed = base64url::decode_array(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let key = SigningKey::from_seed(&Seed::new(seed));
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    let public = PublicKey::from_jwk(&Object::parse(jwk.as_bytes()).unwrap()).unwrap();
    assert_eq!(&public, key.public());
    assert_eq!(
        public.to_jwk(),
        r#"{"crv":"Ed25519","kty":"OKP","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#
    );
    assert_eq!(
        public.thumbprint().to_string(),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
}

/// RFC 8037 A.1: what the RFC prints there is the private key.
#[test]
fn rfc_8037_private_jwk_is_no_public_key() {
    let jwk = r#"{"kty":"OKP","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    assert_eq!(
        PublicKey::from_jwk(&Object::parse(jwk.as_bytes()).unwrap()),
        Err(JwkError::Private)
    );
}

/// RFC 8037 A.4 and A.5
#[test]
fn rfc_8037_signature() {
    let seed = base64url::decode_array(b"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A").unwrap();
    let key = SigningKey::from_seed(&Seed::new(seed));
    let signing_input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    let signature = key.sign(signing_input);
    assert_eq!(
        base64url::encode(&signature),
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    );
    assert_eq!(key.public().verify(signing_input, &signature), Ok(()));
    assert_eq!(
        key.public().verify(&signing_input[1..], &signature),
        Err(BadSignature)
    );
}

/// RFC 7515 A.1: a JWT by name only. docs/protocol.md §2.1, 5: a bare `JWT` is never a match.
#[test]
fn rfc_7515_example_with_typ_jwt_is_refused() {
    let jws = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    for expected in ALL {
        assert_eq!(
            UnverifiedJws::parse(jws.as_bytes(), &[expected]).unwrap_err(),
            JwsError::UnexpectedType
        );
    }
}

/// RFC 7515 A.4, whose header has no `typ` (docs/protocol.md §2.1, 4)
#[test]
fn rfc_7515_example_without_typ_is_refused() {
    let jws = "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn";
    assert_eq!(
        UnverifiedJws::parse(jws.as_bytes(), &ALL).unwrap_err(),
        JwsError::MissingMember("typ")
    );
}

/// RFC 7515 A.5, the unsecured JWS (docs/protocol.md §2.1: `none` is always refused)
#[test]
fn rfc_7515_unsecured_jws_is_refused() {
    let jws = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";
    assert_eq!(
        UnverifiedJws::parse(jws.as_bytes(), &ALL).unwrap_err(),
        JwsError::MissingMember("typ")
    );
    for alg in ["none", "None", "NONE", "nOnE"] {
        let header = base64url::encode(format!(r#"{{"alg":"{alg}","typ":"at+jwt"}}"#).as_bytes());
        for signature in ["", "AAAA"] {
            let typed = format!("{header}.e30.{signature}");
            assert_eq!(
                UnverifiedJws::parse(typed.as_bytes(), &ALL).unwrap_err(),
                JwsError::Unsecured,
                "{alg}"
            );
        }
    }
    let header = base64url::encode(br#"{"alg":"EdDSA","typ":"at+jwt"}"#);
    let unsigned = format!("{header}.e30.");
    assert_eq!(
        UnverifiedJws::parse(unsigned.as_bytes(), &ALL).unwrap_err(),
        JwsError::EmptyPart(JwsPart::Signature)
    );
}

/// RFC 7516 A.1: a JWE has five parts and is not taken for a JWS (docs/protocol.md §2.1, 1).
#[test]
fn rfc_7516_example_is_no_jws() {
    let jwe = b"eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.OKOawDo13gRp2ojaHV7LFpZcgV7T6DVZKTyKOMTYUmKoTCVJRgckCL9kiMT03JGe.48V1_ALb6US04U3b.5eym8TW_c8SuK0ltJ3rpYIzOeDQz7TALvtu6UG9oMo4vpzs9tX_EFShS8iB7j6jiSdiwkIr3ajwQzaBtQD_A.XFBoMYUZodetZdvTiFvSkQ";
    assert_eq!(
        UnverifiedJws::parse(jwe, &ALL).unwrap_err(),
        JwsError::PartCount
    );
}

const ALL: [JwtType; 7] = [
    JwtType::AccessToken,
    JwtType::Attestation,
    JwtType::RelayProof,
    JwtType::DeviceProof,
    JwtType::Card,
    JwtType::Session,
    JwtType::Message,
];

fn x25519(scalar: [u8; 32], point: [u8; 32]) -> Result<[u8; 32], LowOrder> {
    let shared = X25519Secret::from_secret(&Secret::take(&mut { scalar }))
        .diffie_hellman(&X25519PublicKey::from_bytes(point))?;
    Ok(*shared.expose())
}

fn secret(digits: &str) -> X25519Secret {
    X25519Secret::from_secret(&Secret::take(&mut hex(digits)))
}

fn hex<const LEN: usize>(digits: &str) -> [u8; LEN] {
    bytes(digits).try_into().unwrap()
}

fn bytes(digits: &str) -> Vec<u8> {
    assert_eq!(digits.len() % 2, 0);
    (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap())
        .collect()
}
