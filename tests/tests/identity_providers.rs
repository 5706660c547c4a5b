//! The configurations in docs/identity-providers.md do what is said there, with tokens of the form that these providers give.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

use sealwire_client::Error;
use sealwire_client::error::{NotAuthorised, Refusal};
use sealwire_jose::{Algorithm, Algorithms};
use sealwire_server::ExchangeIssuer;
use sealwire_server::issuer_keys::KeySource;
use sealwire_tests::{Account, Credential, Provider, Town, now};
use serde_json::{Value, json};

const DOCUMENT: &str = include_str!("../../docs/identity-providers.md");

/// The keys of the section of the document; those of tables have the table's name in front.
fn section(title: &str) -> BTreeMap<String, Value> {
    let text = DOCUMENT
        .split(&format!("\n## {title}\n"))
        .nth(1)
        .and_then(|text| text.split("```toml\n").nth(1))
        .and_then(|text| text.split("```").next())
        .unwrap();
    let (mut keys, mut table) = (BTreeMap::new(), String::new());
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some((key, value)) = line.split_once(" = ") {
            // What is written here of TOML is JSON too.
            let value = serde_json::from_str(value).unwrap();
            keys.insert(format!("{table}{}", key.trim_matches('"')), value);
        } else if line == "[exchange.scopes]" {
            table = "scopes ".to_owned();
        } else {
            assert_eq!(line, "[[exchange]]");
        }
    }
    keys
}

fn texts(value: &Value) -> Vec<&str> {
    let array = value.as_array().unwrap();
    array.iter().map(|text| text.as_str().unwrap()).collect()
}

/// The issuer of a section, with the provider's keys in a file instead of where it says.
fn issuer(title: &str, provider: &Provider, folder: &Path) -> ExchangeIssuer {
    let mut keys = section(title);
    let mut take = |key: &str| keys.remove(key).unwrap_or_else(|| panic!("{key}"));
    let file = folder.join("jwks.json");
    std::fs::write(&file, provider.jwks()).unwrap();
    let url = take("jwks");
    let algorithms = take("algorithms");
    let algorithms = texts(&algorithms);
    let algorithms: Algorithms = algorithms
        .iter()
        .map(|name| Algorithm::from_name(name).unwrap())
        .collect();
    let _ = KeySource::url(url.as_str().unwrap(), None, algorithms).unwrap();
    let name = take("issuer");
    let mut issuer = ExchangeIssuer::new(
        name.as_str().unwrap(),
        take("audience").as_str().unwrap(),
        take("prefix").as_str().unwrap(),
        KeySource::file(file, algorithms),
    )
    .unwrap()
    .types(&texts(&take("typ")))
    .unwrap()
    .user(take("user").as_str().unwrap())
    .unwrap()
    .scope_claim(take("scope_claim").as_str().unwrap())
    .unwrap();
    for (key, value) in keys {
        if let Some(word) = key.strip_prefix("scopes ") {
            issuer = issuer.scope(word, &texts(&value).join(" ")).unwrap();
        } else {
            assert_eq!(key, "tenant_claim");
            issuer = issuer.tenant_claim(value.as_str().unwrap()).unwrap();
        }
    }
    issuer
}

struct Setting {
    provider: Provider,
    town: Town,
    _folder: tempfile::TempDir,
}

impl Setting {
    async fn of(title: &'static str) -> Self {
        let (provider, folder) = (Provider::rs256(), tempfile::tempdir().unwrap());
        let (signing, path) = (provider.clone(), folder.path().to_owned());
        let town = Town::with(move |relay| relay.exchange(issuer(title, &signing, &path)));
        Self {
            town: town.await,
            provider,
            _folder: folder,
        }
    }

    /// A device that presents these claims.
    fn with(&self, claims: Value) -> Account {
        let provider = self.provider.clone();
        let give = move |_| Ok(provider.sign("JWT", &claims));
        self.town.introduced(Credential::exchanged(give))
    }
}

fn changed(mut claims: Value, changes: &Value) -> Value {
    let members = claims.as_object_mut().unwrap();
    members.extend(changes.as_object().unwrap().clone());
    claims
}

/// An access token of Keycloak 26 for a client with the scope `chat`.
fn keycloak(user: &str, roles: &Value) -> Value {
    json!({
        "exp": now() + 300,
        "iat": now(),
        "auth_time": now() - 60,
        "jti": "onrtac:7d1f3e0a-2f57-4a0e-9a35-4b4f0f7f2a11",
        "iss": "https://id.example/realms/acme",
        "aud": ["https://chat.example", "account"],
        "sub": "0b0c52c4-9f0f-4a57-8a7b-5f5a3e3c9d10",
        "typ": "Bearer",
        "azp": "chat-app",
        "sid": "b4f3d1de-63a0-4a6e-8a51-2f1e4dcb6a70",
        "acr": "1",
        "allowed-origins": ["https://app.example"],
        "realm_access": { "roles": roles },
        "resource_access": { "account": { "roles": ["manage-account", "view-profile"] } },
        "scope": "openid profile email chat",
        "email_verified": true,
        "name": "Alice Example",
        "preferred_username": user,
        "given_name": "Alice",
        "family_name": "Example",
        "email": "alice@example.com",
    })
}

/// An access token of Auth0 for an API with RBAC.
fn auth0(subject: &str, organization: &str, permissions: &Value) -> Value {
    json!({
        "https://chat.example/org": organization,
        "iss": "https://acme.eu.auth0.com/",
        "sub": subject,
        "aud": ["https://chat.example", "https://acme.eu.auth0.com/userinfo"],
        "iat": now(),
        "exp": now() + 3_600,
        "scope": "openid profile offline_access",
        "org_id": "org_9ybsU1dN2dKfDkBi",
        "azp": "my0H4rnu0gH8mFzX3Y0XnQAd8Ea2cFQy",
        "permissions": permissions,
    })
}

fn is_refused(error: &Error) -> bool {
    matches!(error, Error::NotAuthorised(NotAuthorised::Credential))
}

#[tokio::test]
async fn keycloak_names_users_and_roles_say_what_they_may_do() {
    let setting = Setting::of("Keycloak").await;
    let users = json!(["default-roles-acme", "offline_access", "chat-user"]);
    let alice = setting.with(keycloak("alice", &users)).arrive().await;
    let bob = setting.with(keycloak("bob", &users)).arrive().await;
    let carol = setting.town.join("carol").await;
    alice.meet("acme/bob", &bob, "acme/alice").await;
    carol.meet("acme/alice", &alice, "carol").await;

    // A bot sends, and gets nothing.
    let bot = setting.with(keycloak("bot", &json!(["chat-bot"])));
    let bot = bot.arrive().await;
    bot.send("acme/alice", "it rains").await;
    assert_eq!(alice.text().await.0, "acme/bot");

    let good = keycloak("mallory", &users);
    for (what, claims) in [
        ("no role", keycloak("mallory", &json!(["offline_access"]))),
        (
            "no roles",
            changed(good.clone(), &json!({"realm_access": {}})),
        ),
        ("an ID token", changed(good.clone(), &json!({"typ": "ID"}))),
        (
            "a refresh token",
            changed(good.clone(), &json!({"typ": "Refresh"})),
        ),
        (
            "another audience",
            changed(good.clone(), &json!({"aud": "account"})),
        ),
        (
            "the application",
            changed(good.clone(), &json!({"aud": "chat-app"})),
        ),
        (
            "another realm",
            changed(
                good.clone(),
                &json!({"iss": "https://id.example/realms/master"}),
            ),
        ),
        (
            "no user",
            changed(good.clone(), &json!({"preferred_username": ""})),
        ),
    ] {
        let error = setting.with(claims).is_refused().await;
        assert!(is_refused(&error), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn auth0_separates_organizations() {
    let setting = Setting::of("Auth0").await;
    let may = json!(["chat:use", "other:thing"]);
    let with = |subject, organization| setting.with(auth0(subject, organization, &may));
    let alice = with("auth0|64f1c0ffee", "acme").arrive().await;
    let bob = with("google-oauth2|1080", "acme").arrive().await;
    let eve = with("auth0|eve", "globex").arrive().await;
    let own = "acme/auth0|64f1c0ffee";
    alice.meet("acme/google-oauth2|1080", &bob, own).await;
    for user in [own, "acme/nobody"] {
        let refused = eve.cannot_send(user, "hello").await;
        assert!(matches!(refused, Error::Refused(Refusal::NotPermitted)));
    }

    let good = auth0("auth0|mallory", "acme", &may);
    for (what, claims) in [
        ("no permission", auth0("auth0|mallory", "acme", &json!([]))),
        (
            "no organization",
            changed(good.clone(), &json!({"https://chat.example/org": null})),
        ),
        (
            "a part of one",
            changed(good.clone(), &json!({"https://chat.example/org": "acme/x"})),
        ),
        (
            "an ID token",
            changed(
                good.clone(),
                &json!({"aud": "my0H4rnu0gH8mFzX3Y0XnQAd8Ea2cFQy"}),
            ),
        ),
        (
            "without the slash",
            changed(good.clone(), &json!({"iss": "https://acme.eu.auth0.com"})),
        ),
    ] {
        let error = setting.with(claims).is_refused().await;
        assert!(is_refused(&error), "{what}: {error:?}");
    }
    setting.with(good).arrive().await;
}
