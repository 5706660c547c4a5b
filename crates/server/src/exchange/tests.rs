use sealwire_jose::{Algorithm, KeySet, KeyType, PrivateKey, SigningKey as TokenKey};
use sealwire_protocol::base64url;
use sealwire_protocol::key::{Seed, SigningKey};
use sealwire_protocol::permissions::Recipient;
use serde_json::{Value as Json, json};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::storage::Storage;

const NOW: u64 = 1_800_000_000;
const PROVIDER: &str = "https://id.example/realms/acme";
const AUDIENCE: &str = "https://relay.example";
const ALL: &str = "sealwire:send sealwire:receive sealwire:publish";

fn key(number: u8) -> SigningKey {
    SigningKey::from_seed(&Seed::new([number; 32]))
}

fn user(name: &str) -> User {
    User::new(name).unwrap()
}

/// A provider with a key of its own.
struct Provider {
    key: TokenKey,
    public: sealwire_jose::PublicKey,
}

impl Provider {
    fn new() -> Self {
        let key = PrivateKey::generate(KeyType::P256).unwrap();
        Self {
            public: key.public().unwrap(),
            key: TokenKey::new(&key).unwrap(),
        }
    }

    fn keys(&self) -> KeySet {
        let only = sealwire_jose::Algorithms::of(&[Algorithm::Es256]);
        KeySet::from_public_keys(std::slice::from_ref(&self.public), only).unwrap()
    }

    fn named(&self, issuer: &str, prefix: &str) -> ExchangeIssuer {
        ExchangeIssuer::with_keys(issuer, AUDIENCE, prefix, self.keys())
            .unwrap()
            .scopes(ALL)
            .unwrap()
    }

    fn with_prefix(&self, prefix: &str) -> ExchangeIssuer {
        self.named(PROVIDER, prefix)
    }

    fn token(&self, changes: &Json) -> String {
        let mut claims = json!({"iss": PROVIDER, "aud": AUDIENCE, "sub": "42", "iat": NOW - 100, "exp": NOW + 600, "jti": "p1"});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
            .as_object_mut()
            .unwrap()
            .retain(|_, value| !value.is_null());
        self.key.json("JWT", claims.to_string().as_bytes()).unwrap()
    }
}

fn built_in(exchange: &Exchange) -> Issuer {
    let mut issuer = Issuer::new(Storage::in_memory().unwrap(), key(0xee));
    issuer.respect(Arc::clone(exchange.names()));
    issuer
}

fn exchange(issuers: Vec<ExchangeIssuer>) -> Exchange {
    Exchange::new(issuers, false, None).unwrap()
}

fn exchanged(issuer: ExchangeIssuer, token: &str) -> Result<Minted, ExchangeError> {
    let exchange = exchange(vec![issuer]);
    exchange.exchange(&built_in(&exchange), token.as_bytes(), key(1).public(), NOW)
}

fn mapping_error(issuer: ExchangeIssuer, token: &str) -> MappingError {
    match exchanged(issuer, token) {
        Err(ExchangeError::Mapping { error, .. }) => error,
        other => panic!("{other:?}"),
    }
}

// docs/protocol.md §3.7
#[test]
fn minted_token_says_no_more_than_the_exchanged_one() {
    let provider = Provider::new();
    let details = json!([
        {"type": "payments", "to": 7},
        {"type": "sealwire", "to": ["acme/bob", "acme/team-*"], "max_message_bytes": 9},
        {"type": "sealwire", "messages_per_minute": 5, "services": ["orders.create", "stock.*"]},
    ]);
    let token = provider.token(&json!({"authorization_details": details}));
    let issuer = provider
        .with_prefix("acme/")
        .scopes("sealwire:send sealwire:call")
        .unwrap();
    let minted = exchanged(issuer, &token).unwrap();
    let claims = minted.verified.claims();
    assert_eq!(claims.user, user("acme/42"));
    assert_eq!(claims.device, key(1).thumbprint());
    assert_eq!(
        (claims.issued, claims.expires, claims.id.as_deref()),
        (NOW - 100, NOW + 600, Some("p1"))
    );
    let may = &claims.permissions;
    assert!(may.send && !may.receive && !may.publish && may.tenant.is_none());
    assert!(may.may_call("orders.create") && may.may_call("stock.level"));
    assert!(!may.may_call("orders") && !may.may_call("payroll"));
    assert_eq!(
        (
            may.max_message_bytes,
            may.messages_per_minute,
            may.mailbox_bytes
        ),
        (Some(9), Some(5), None)
    );
    let expected = [
        Recipient::User(user("acme/bob")),
        Recipient::Prefix("acme/team-".to_owned()),
    ];
    assert_eq!(may.to.as_deref(), Some(expected.as_slice()));

    // Nor is it good for longer than any of the built-in issuer's. What has no id is revoked by the hash of what was signed.
    let long = provider.token(&json!({"exp": NOW + 86_400, "iat": NOW + 30, "jti": null}));
    let (signed, _) = long.rsplit_once('.').unwrap();
    let id = base64url::encode(&Sha256::digest(signed));
    let minted = exchanged(provider.with_prefix("acme/"), &long).unwrap();
    let claims = minted.verified.claims();
    assert_eq!(
        (claims.issued, claims.expires),
        (NOW, NOW + TOKEN_LIFETIME_SECONDS)
    );
    assert_eq!(claims.id.as_deref(), Some(id.as_str()));
    assert!(claims.permissions.to.is_none());
}

#[test]
fn recipients_that_do_not_fit_one_entry_are_all_kept() {
    let provider = Provider::new();
    for count in [0, 1, 64, 65, 130] {
        let names: Vec<_> = (0..count).map(|number| format!("u{number}")).collect();
        let entries: Vec<_> = names
            .chunks(64)
            .map(|to| json!({"type": "sealwire", "to": to}))
            .collect();
        let entries = if count == 0 {
            vec![json!({"type": "sealwire", "to": []})]
        } else {
            entries
        };
        let token = provider.token(&json!({"authorization_details": entries}));
        let minted = exchanged(provider.with_prefix(""), &token).unwrap();
        let to = minted.verified.claims().permissions.to.as_ref().unwrap();
        let expected: Vec<_> = names
            .iter()
            .map(|name| Recipient::User(user(name)))
            .collect();
        assert_eq!(*to, expected, "{count}");
    }
}

// docs/protocol.md §3.7
#[test]
fn token_that_does_not_verify_is_refused_with_the_reason() {
    let (provider, stranger) = (Provider::new(), Provider::new());
    let refused = |token: &str| match exchanged(provider.with_prefix(""), token) {
        Err(ExchangeError::Token { issuer, error }) => {
            assert_eq!(issuer.as_str(), PROVIDER);
            error
        }
        other => panic!("{other:?}"),
    };
    let wrong = |claim, defect| TokenError::Claim { claim, defect };
    assert_eq!(
        refused(&provider.token(&json!({"aud": "account"}))),
        wrong("aud", ClaimDefect::Mismatch)
    );
    assert_eq!(
        refused(&provider.token(&json!({"exp": NOW - 60}))),
        wrong("exp", ClaimDefect::Expired)
    );
    let old = json!({"iat": NOW - MAX_ATTESTATION_AGE_SECONDS - 1});
    assert_eq!(
        refused(&provider.token(&old)),
        wrong("iat", ClaimDefect::TooOld)
    );
    let bound = json!({"cnf": {"jkt": key(2).thumbprint().to_string()}});
    assert_eq!(refused(&provider.token(&bound)), TokenError::BoundElsewhere);
    assert_eq!(
        refused(&provider.token(&json!({"at_hash": "x"}))),
        TokenError::IdToken
    );
    assert!(matches!(
        refused(&stranger.token(&json!({}))),
        TokenError::Signature(_)
    ));
    let bound = json!({"cnf": {"jkt": key(1).thumbprint().to_string()}});
    exchanged(provider.with_prefix(""), &provider.token(&bound)).unwrap();
    let lenient = provider.with_prefix("").id_tokens(true);
    exchanged(lenient, &provider.token(&json!({"at_hash": "x"}))).unwrap();
    let other_type = provider.with_prefix("").types(&["at+jwt"]).unwrap();
    assert!(matches!(
        exchanged(other_type, &provider.token(&json!({}))),
        Err(ExchangeError::Token {
            error: TokenError::Jws(_),
            ..
        })
    ));

    let elsewhere = provider.token(&json!({"iss": "https://other.example"}));
    assert_eq!(
        exchanged(provider.with_prefix(""), &elsewhere).unwrap_err(),
        ExchangeError::UnknownIssuer { known: 1 }
    );
    assert!(matches!(
        exchanged(provider.with_prefix(""), "a.b.c"),
        Err(ExchangeError::Malformed(_))
    ));
    let none = Exchange::default();
    let token = provider.token(&json!({}));
    assert_eq!(
        none.exchange(&built_in(&none), token.as_bytes(), key(1).public(), NOW)
            .unwrap_err(),
        ExchangeError::NoExchange
    );
    assert!(!none.concerns(token.as_bytes()));
}

// docs/protocol.md §3.7
#[test]
fn user_is_made_of_the_claims_that_the_template_names() {
    let provider = Provider::new();
    let token = json!({
        "sub": "a.b", "email": "alice@example.com", "email_verified": true, "org": "acme", "deep": {"er": {"id": "x"}}, "a.b": "dotted",
        "https://example.com/id": "spaced name", "brace": "}",
    });
    for (template, expected) in [
        ("{sub}", "a.b"),
        ("{org}/{email}", "acme/alice@example.com"),
        ("{deep.er.id}", "x"),
        (r"{a\.b}", "dotted"),
        ("{https://example.com/id}", "spaced name"),
        ("u-{sub}-{org}", "u-a.b-acme"),
        ("{{{sub}}}", "{a.b}"),
        ("{org}: {brace}", "acme: }"),
    ] {
        let issuer = provider.with_prefix("p/").user(template).unwrap();
        let minted = exchanged(issuer, &provider.token(&token)).unwrap();
        let named = minted.verified.claims().user.as_str();
        assert_eq!(named, format!("p/{expected}"), "{template}");
    }
}

// docs/protocol.md §3.7, §1.2
#[test]
fn claims_that_make_no_name_are_refused_and_named() {
    let provider = Provider::new();
    let refused = |template: &str, claims: Json| {
        let issuer = provider.with_prefix("").user(template).unwrap();
        mapping_error(issuer, &provider.token(&claims))
    };
    let claim = |claim: &str, defect| MappingError::Claim {
        claim: claim.into(),
        defect,
    };
    for (value, defect) in [
        (Json::Null, ClaimDefect::Missing),
        (json!(""), ClaimDefect::Invalid),
        (json!(true), ClaimDefect::WrongType),
        (json!(7), ClaimDefect::WrongType),
        (json!(1.5), ClaimDefect::WrongType),
        (json!(["x"]), ClaimDefect::WrongType),
        (json!({"x": 1}), ClaimDefect::WrongType),
    ] {
        assert_eq!(
            refused("{name}", json!({"name": value})),
            claim("name", defect)
        );
    }
    assert_eq!(
        refused("{a.b}", json!({"a": "b"})),
        claim("a.b", ClaimDefect::WrongType)
    );
    assert_eq!(
        refused("{a.b}", json!({"a.b": "x"})),
        claim("a.b", ClaimDefect::Missing)
    );
    assert_eq!(
        refused("{sub}", json!({"sub": "x\ny"})),
        MappingError::User(NameError::ControlCharacter)
    );
    assert_eq!(
        refused("{sub}-{sub}", json!({"sub": "x".repeat(128)})),
        MappingError::User(NameError::TooLong)
    );
    // Otherwise a/b and c would be the same as a and b/c.
    assert_eq!(
        refused("{org}/{sub}", json!({"org": "a/b", "sub": "c"})),
        MappingError::Separator {
            claim: "org".into(),
            separator: '/'
        }
    );
}

// docs/protocol.md §3.7
#[test]
fn email_counts_only_where_it_is_verified() {
    let provider = Provider::new();
    let claims = |path: &str, verified: &Json| match path {
        "{email}" => json!({"email": "a@b.c", "email_verified": verified}),
        "{user.email}" => {
            // What is said of another address says nothing of this one.
            json!({"user": {"email": "a@b.c", "email_verified": verified}, "email_verified": true})
        }
        _ => json!({
            "https://acme.example/email": "a@b.c",
            "https://acme.example/email_verified": verified,
            "email_verified": true,
        }),
    };
    for template in ["{email}", "{user.email}", "{https://acme.example/email}"] {
        let issuer = || provider.with_prefix("").user(template).unwrap();
        for unverified in [json!(false), json!("true"), json!(1), json!({}), Json::Null] {
            let token = provider.token(&claims(template, &unverified));
            assert!(
                matches!(
                    mapping_error(issuer(), &token),
                    MappingError::UnverifiedEmail { .. }
                ),
                "{template} {unverified}"
            );
        }
        let token = provider.token(&claims(template, &json!(true)));
        exchanged(issuer(), &token).unwrap();
    }
    let tenant = provider.with_prefix("").tenant_claim("email").unwrap();
    let tenant = tenant.user("{email}/{sub}").unwrap();
    let token = provider.token(&json!({"email": "a@b.c"}));
    assert!(matches!(
        mapping_error(tenant, &token),
        MappingError::UnverifiedEmail { .. }
    ));
}

#[test]
fn templates_and_claims_that_are_none_are_refused_when_they_are_said() {
    let provider = Provider::new();
    let template = |template: &str| match provider.with_prefix("").user(template) {
        Err(ExchangeConfigError::Template { defect, .. }) => defect,
        other => panic!("{other:?}"),
    };
    let long = "x".repeat(1_025);
    for (wrong, defect) in [
        ("", TemplateDefect::NoClaim),
        ("alice", TemplateDefect::NoClaim),
        ("{{sub}}", TemplateDefect::NoClaim),
        ("{sub", TemplateDefect::Brace),
        ("sub}", TemplateDefect::Brace),
        ("{a{b}}", TemplateDefect::Brace),
        ("{a}{b}", TemplateDefect::Adjacent),
        ("{}", TemplateDefect::Claim(ClaimNameDefect::Empty)),
        ("{a..b}", TemplateDefect::Claim(ClaimNameDefect::Empty)),
        ("{.a}", TemplateDefect::Claim(ClaimNameDefect::Empty)),
        (r"{a\b}", TemplateDefect::Claim(ClaimNameDefect::Escape)),
        (r"{a\", TemplateDefect::Brace),
        (
            "{a.b.c.d.e.f.g.h.i}",
            TemplateDefect::Claim(ClaimNameDefect::TooDeep),
        ),
        (
            "{a}-{a}-{a}-{a}-{a}-{a}-{a}-{a}-{a}",
            TemplateDefect::TooManyClaims,
        ),
        (&long, TemplateDefect::TooLong),
    ] {
        assert_eq!(template(wrong), defect, "{wrong}");
    }
    for claim in ["", "a.", r"a\"] {
        for refused in [
            provider.with_prefix("").scope_claim(claim),
            provider.with_prefix("").tenant_claim(claim),
        ] {
            assert!(
                matches!(refused, Err(ExchangeConfigError::Claim { .. })),
                "{refused:?}"
            );
        }
    }
}

// docs/protocol.md §3.7
#[test]
fn scopes_follow_from_the_words_of_a_claim() {
    let provider = Provider::new();
    let issuer = || {
        ExchangeIssuer::with_keys(PROVIDER, AUDIENCE, "", provider.keys())
            .unwrap()
            .scope_claim("realm_access.roles")
            .unwrap()
            .scope("reader", "sealwire:receive sealwire:publish")
            .unwrap()
            .scope("writer", "sealwire:send")
            .unwrap()
    };
    let with = |roles: Json| provider.token(&json!({"realm_access": {"roles": roles}}));
    for (roles, expected) in [
        (json!(["writer"]), (true, false, false)),
        (json!(["x", "reader"]), (false, true, true)),
        (json!("reader  writer x"), (true, true, true)),
    ] {
        let minted = exchanged(issuer(), &with(roles)).unwrap();
        let may = &minted.verified.claims().permissions;
        assert_eq!((may.send, may.receive, may.publish), expected);
    }
    for roles in [json!([]), json!(["Writer", "sealwire:send"]), json!("")] {
        assert_eq!(
            mapping_error(issuer(), &with(roles)),
            MappingError::NoScope {
                claim: "realm_access.roles".into()
            }
        );
    }
    for (roles, defect) in [
        (json!([1]), ClaimDefect::WrongType),
        (json!(["writer", null]), ClaimDefect::WrongType),
        (json!(7), ClaimDefect::WrongType),
        (json!({}), ClaimDefect::WrongType),
    ] {
        assert_eq!(
            mapping_error(issuer(), &with(roles)),
            MappingError::Claim {
                claim: "realm_access.roles".into(),
                defect
            }
        );
    }
    // Without words of the provider's, it says ours.
    let plain = ExchangeIssuer::with_keys(PROVIDER, AUDIENCE, "", provider.keys())
        .unwrap()
        .scope_claim("scope")
        .unwrap();
    let token = provider.token(&json!({"scope": "openid sealwire:send"}));
    let minted = exchanged(plain, &token).unwrap();
    let may = &minted.verified.claims().permissions;
    assert!(may.send && !may.receive && !may.publish);
}

#[test]
fn scopes_that_are_none_or_said_twice_or_never_are_refused() {
    let provider = Provider::new();
    let bare = || ExchangeIssuer::with_keys(PROVIDER, AUDIENCE, "", provider.keys()).unwrap();
    for wrong in [
        "",
        " ",
        "send",
        "sealwire:send,sealwire:receive",
        "sealwire:send openid",
    ] {
        assert!(matches!(
            bare().scopes(wrong),
            Err(ExchangeConfigError::Scope { .. })
        ));
        assert!(matches!(
            bare().scope("word", wrong),
            Err(ExchangeConfigError::Scope { .. })
        ));
    }
    for word in ["", "two words"] {
        assert_eq!(
            bare().scope(word, ALL).unwrap_err(),
            ExchangeConfigError::ScopeWord
        );
    }
    for twice_or_never in [
        bare(),
        bare().scopes(ALL).unwrap().scope_claim("scope").unwrap(),
        bare().scopes(ALL).unwrap().scope("word", ALL).unwrap(),
        bare().scope("word", ALL).unwrap(),
    ] {
        assert!(matches!(
            Exchange::new(vec![twice_or_never], false, None),
            Err(ExchangeConfigError::Scopes { .. })
        ));
    }
}

// docs/protocol.md §3.7
#[test]
fn issuers_that_could_name_the_same_users_do_not_start() {
    let provider = Provider::new();
    let (a, b) = ("https://a.example", "https://b.example");
    let together = |issuers| Exchange::new(issuers, false, None).map(drop);
    let shared = |issuer: &str| provider.named(issuer, "acme/").shared_users(true);
    assert_eq!(
        together(vec![provider.named(a, "acme/"), provider.named(b, "acme/")]),
        Err(ExchangeConfigError::SamePrefix {
            prefix: "acme/".to_owned()
        })
    );
    assert_eq!(
        together(vec![shared(a), provider.named(b, "acme/")]),
        Err(ExchangeConfigError::SamePrefix {
            prefix: "acme/".to_owned()
        })
    );
    together(vec![shared(a), shared(b)]).unwrap();
    assert!(matches!(
        together(vec![provider.named(a, "x/"), provider.named(a, "y/")]),
        Err(ExchangeConfigError::SameIssuer { .. })
    ));
    let many = (0..=MAX_EXCHANGE_ISSUERS)
        .map(|number| provider.named(&format!("https://{number}.example"), &format!("{number}/")));
    assert_eq!(together(many.collect()), Err(ExchangeConfigError::TooMany));
    for prefix in [
        "acme",
        "/",
        "/acme/",
        "a\n/",
        &format!("{}/", "x".repeat(255)),
    ] {
        assert!(matches!(
            ExchangeIssuer::with_keys(a, AUDIENCE, prefix, provider.keys()),
            Err(ExchangeConfigError::Prefix { .. })
        ));
    }
    assert!(matches!(
        ExchangeIssuer::with_keys("", AUDIENCE, "", provider.keys()),
        Err(ExchangeConfigError::Issuer(NameError::Empty))
    ));
    assert!(matches!(
        ExchangeIssuer::with_keys(a, "", "", provider.keys()),
        Err(ExchangeConfigError::Audience)
    ));
    for types in [&[][..], &["a b"], &["JWT"; 17]] {
        assert!(matches!(
            provider.with_prefix("").types(types),
            Err(ExchangeConfigError::Types)
        ));
    }
}

// docs/protocol.md §3.7
#[test]
fn issuer_names_no_user_of_another_one() {
    let provider = Provider::new();
    let everybody = "https://everybody.example";
    let issuers = |share: bool| {
        let any = |issuer, prefix| provider.named(issuer, prefix).shared_users(share);
        vec![
            any(everybody, ""),
            any(PROVIDER, "acme/"),
            any("https://team.example", "acme/team/"),
        ]
    };
    let named = |share, issuer: &str, sub: &str| {
        let exchange = exchange(issuers(share));
        let token = provider.token(&json!({"iss": issuer, "sub": sub}));
        let minted =
            exchange.exchange(&built_in(&exchange), token.as_bytes(), key(1).public(), NOW);
        match minted {
            Ok(minted) => Ok(minted.verified.claims().user.as_str().to_owned()),
            Err(ExchangeError::Mapping { error, .. }) => Err(error),
            Err(error) => panic!("{error:?}"),
        }
    };
    for (issuer, sub, expected) in [
        (everybody, "bob", Some("bob")),
        (everybody, "acme", Some("acme")),
        (everybody, "acme/bob", None),
        (everybody, "acme/team/bob", None),
        (PROVIDER, "bob", Some("acme/bob")),
        (PROVIDER, "team", Some("acme/team")),
        (PROVIDER, "team/bob", None),
        ("https://team.example", "bob", Some("acme/team/bob")),
    ] {
        let expected = expected
            .map(str::to_owned)
            .ok_or(MappingError::AnotherIssuers);
        assert_eq!(named(false, issuer, sub), expected, "{issuer} {sub}");
    }
    assert_eq!(
        named(true, everybody, "acme/team/bob"),
        Ok("acme/team/bob".to_owned())
    );
}

// docs/protocol.md §3.7
#[tokio::test]
async fn who_is_invited_is_nobody_whom_an_issuer_names() {
    let provider = Provider::new();
    for (share, prefix, invited, expected) in [
        (false, "acme/", "bob", None),
        (false, "acme/", "acme/bob", Some(IssuerError::Reserved)),
        (false, "", "bob", Some(IssuerError::Reserved)),
        (true, "acme/", "acme/bob", None),
        (true, "", "bob", None),
    ] {
        let exchange = exchange(vec![provider.with_prefix(prefix).shared_users(share)]);
        let issuer = built_in(&exchange);
        let outcome = issuer.invite(&user(invited), 60, NOW).await;
        assert_eq!(outcome.map(drop).err(), expected, "{prefix} {invited}");
    }
    // Who was invited before is not renewed either.
    let mut issuer = built_in(&Exchange::default());
    let device = *key(1).public();
    let code = issuer.invite(&user("acme/bob"), 60, NOW).await.unwrap();
    issuer.redeem(code.expose(), &device, NOW).await.unwrap();
    issuer.renew(&device, NOW).unwrap();
    let waiting = issuer.invite(&user("acme/eve"), 60, NOW).await.unwrap();
    let exchange = exchange(vec![provider.with_prefix("acme/")]);
    issuer.respect(Arc::clone(exchange.names()));
    assert_eq!(
        issuer.renew(&device, NOW).unwrap_err(),
        IssuerError::Reserved
    );
    assert_eq!(
        issuer
            .redeem(waiting.expose(), key(2).public(), NOW)
            .await
            .unwrap_err(),
        IssuerError::Reserved
    );
    // That has used nothing up.
    assert_eq!(issuer.devices(&user("acme/eve")), Ok(vec![]));
    issuer.respect(Arc::default());
    let redeemed = issuer.redeem(waiting.expose(), key(3).public(), NOW).await;
    redeemed.unwrap();
    issuer.respect(Arc::clone(exchange.names()));
    // A device is one user's.
    let token = provider.token(&json!({"sub": "eve"}));
    let another = exchange.exchange(&issuer, token.as_bytes(), &device, NOW);
    assert!(matches!(
        another,
        Err(ExchangeError::Issuer {
            error: IssuerError::AnotherUser,
            ..
        })
    ));
}

// docs/protocol.md §3.7
#[test]
fn exchanged_device_is_not_enrolled() {
    let provider = Provider::new();
    let exchange = exchange(vec![provider.with_prefix("")]);
    let issuer = built_in(&exchange);
    let token = provider.token(&json!({}));
    exchange
        .exchange(&issuer, token.as_bytes(), key(1).public(), NOW)
        .unwrap();
    assert_eq!(
        issuer.renew(key(1).public(), NOW).unwrap_err(),
        IssuerError::NotEnrolled
    );
    assert!(issuer.devices(&user("42")).unwrap().is_empty());
}

// docs/protocol.md §5.7
#[test]
fn tenant_is_the_prefix_and_a_claim_and_has_the_user_in_it() {
    let provider = Provider::new();
    let issuer = |prefix: &str| {
        provider
            .with_prefix(prefix)
            .user("{org}/{sub}")
            .unwrap()
            .tenant_claim("org")
            .unwrap()
    };
    let with = |org: Json| provider.token(&json!({"org": org}));
    for (prefix, tenant) in [("", "acme"), ("corp/", "corp/acme")] {
        let minted = exchanged(issuer(prefix), &with(json!("acme"))).unwrap();
        let claims = minted.verified.claims();
        assert_eq!(claims.user.as_str(), format!("{tenant}/42"));
        let named = claims.permissions.tenant.as_ref().unwrap();
        assert_eq!(named.as_str(), tenant);
    }
    let one = provider.with_prefix("acme/").prefix_is_tenant();
    let minted = exchanged(one, &provider.token(&json!({}))).unwrap();
    let named = minted
        .verified
        .claims()
        .permissions
        .tenant
        .as_ref()
        .unwrap();
    assert_eq!(named.as_str(), "acme");

    let claim = |defect| MappingError::Claim {
        claim: "org".into(),
        defect,
    };
    let plain = || provider.with_prefix("").tenant_claim("org").unwrap();
    assert_eq!(
        mapping_error(plain(), &with(json!("acme"))),
        MappingError::OutsideTenant
    );
    let by_name = || plain().user("acme-{sub}").unwrap();
    assert_eq!(
        mapping_error(by_name(), &with(json!("acme"))),
        MappingError::OutsideTenant
    );
    assert_eq!(
        mapping_error(plain(), &with(json!("a/b"))),
        claim(ClaimDefect::Invalid)
    );
    assert_eq!(
        mapping_error(plain(), &with(json!(""))),
        claim(ClaimDefect::Invalid)
    );
    assert_eq!(
        mapping_error(plain(), &with(json!(7))),
        claim(ClaimDefect::WrongType)
    );
    assert_eq!(
        mapping_error(plain(), &with(Json::Null)),
        claim(ClaimDefect::Missing)
    );
    assert_eq!(
        mapping_error(plain(), &with(json!("a\nb"))),
        MappingError::Tenant(NameError::ControlCharacter)
    );
    let nothing = provider.with_prefix("").prefix_is_tenant();
    assert!(matches!(
        Exchange::new(vec![nothing], false, None),
        Err(ExchangeConfigError::TenantOfNoPrefix { .. })
    ));
    assert!(matches!(
        Exchange::new(vec![provider.with_prefix("x/")], true, None),
        Err(ExchangeConfigError::NoTenant { .. })
    ));
}

// docs/protocol.md §5.7
#[test]
fn nobody_without_a_tenant_reaches_into_those_that_the_relay_knows() {
    let provider = Provider::new();
    let many = provider.named("https://many.example", "corp/");
    let many = many.tenant_claim("org").unwrap();
    let one = provider
        .named("https://one.example", "acme/")
        .prefix_is_tenant();
    let open = provider.named("https://open.example", "open/");
    // Within what another calls a tenant.
    let inner = provider.named("https://inner.example", "acme/board/");
    let exchange = exchange(vec![many, one, open, inner.prefix_is_tenant()]);
    let may = |tenant: Option<&str>, to: &str, own: &str| {
        let permissions = sealwire_protocol::permissions::Permissions {
            send: true,
            tenant: tenant.map(|tenant| Tenant::new(tenant).unwrap()),
            ..Default::default()
        };
        exchange
            .names()
            .may_reach(&permissions, &user(to), &user(own))
    };
    for (to, allowed) in [
        ("bob", true),
        ("open/bob", true),
        ("acme", true),
        ("acme/bob", false),
        ("corp/x/bob", false),
        ("corp/bob", false),
    ] {
        assert_eq!(may(None, to, "alice"), allowed, "{to}");
    }
    assert!(may(None, "acme/bob", "acme/bob"));
    assert!(may(Some("acme"), "acme/bob", "acme/alice"));
    assert!(!may(Some("acme"), "bob", "acme/alice"));
    assert!(!may(Some("acme"), "acme/board/bob", "acme/alice"));
    assert!(may(Some("acme/board"), "acme/board/bob", "acme/board/eve"));
    assert!(may(Some("corp/x"), "corp/x/bob", "corp/x/eve"));
    assert!(!may(Some("corp"), "corp/x/bob", "corp/eve"));
    assert!(may(Some("open"), "open/bob", "open/eve"));
    assert!(!may(Some("acme"), "corp/x/bob", "acme/alice"));
}

// docs/protocol.md §5.7
#[tokio::test]
async fn who_is_invited_is_of_the_tenant_before_the_last_slash_where_there_are_tenants() {
    let provider = Provider::new();
    let many = || {
        let issuer = provider.named("https://many.example", "corp/");
        issuer.tenant_claim("org").unwrap().shared_users(true)
    };
    let one = || {
        let issuer = provider.named("https://one.example", "acme/");
        issuer.prefix_is_tenant().shared_users(true)
    };
    for (required, invited, expected) in [
        (false, "bob", Ok(None)),
        (false, "team/bob", Ok(None)),
        (false, "acme/bob", Ok(Some("acme"))),
        (false, "acme/team/bob", Ok(Some("acme"))),
        (false, "corp/x/bob", Ok(Some("corp/x"))),
        (false, "corp/x/y/bob", Ok(Some("corp/x/y"))),
        (false, "corp/bob", Err(IssuerError::NoTenant)),
        (true, "bob", Err(IssuerError::NoTenant)),
        (true, "/bob", Err(IssuerError::NoTenant)),
        (true, "team/", Err(IssuerError::NoTenant)),
        (true, "team/bob", Ok(Some("team"))),
        (true, "a/b/bob", Ok(Some("a/b"))),
    ] {
        let exchange = Exchange::new(vec![many(), one()], required, None).unwrap();
        let issuer = built_in(&exchange);
        let minted = async {
            let code = issuer.invite(&user(invited), 60, NOW).await?;
            issuer.redeem(code.expose(), key(1).public(), NOW).await
        };
        let minted = minted.await;
        let tenant = minted.as_ref().map(|minted| {
            let tenant = minted.verified.claims().permissions.tenant.as_ref();
            tenant.map(Tenant::as_str)
        });
        assert_eq!(tenant.map_err(|error| *error), expected, "{invited}");
    }
}

#[test]
fn debug_shows_no_key_and_errors_show_no_claim() {
    let provider = Provider::new();
    let issuer = provider.with_prefix("acme/");
    assert!(format!("{issuer:?}").contains("keys: Given(..)"));
    let exchange = exchange(vec![issuer]);
    assert_eq!(format!("{exchange:?}"), format!("[{PROVIDER:?}]"));
    let issuer = provider.with_prefix("").user("{email}/{sub}").unwrap();
    let token = provider.token(&json!({"email": "secret/person"}));
    let shown = format!("{0} {0:?}", exchanged(issuer, &token).unwrap_err());
    assert!(
        shown.contains("email") && !shown.contains("secret") && !shown.contains("person"),
        "{shown}"
    );
}
