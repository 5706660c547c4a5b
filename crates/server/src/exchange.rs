//! Identity providers whose tokens are exchanged: they know nothing of devices, and the built-in issuer mints what names one (docs/protocol.md §3.7).
//!
//! ```text
//!  provider's token ── keys, issuer, audience, times ── its rules: user, tenant, scopes ── built-in issuer ─▶ access token for the proved device
//!                        (sealwire_protocol::provider)   (claims, names)                    (issuer)
//! ```
//! Nothing is stored of an exchange: a device that comes back presents a token again, and whoever leaves the provider gets no more. What the minted token
//! says is never newer, longer or more than what the provider's said, and it has the same `jti`, so that one revocation ends both.
mod claims;
mod names;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use sealwire_protocol::json::{Object, Value};
use sealwire_protocol::jws::SignatureVerifier;
use sealwire_protocol::key::PublicKey;
use sealwire_protocol::limits::MAX_ATTESTATION_AGE_SECONDS;
use sealwire_protocol::name::{Issuer as IssuerName, NameError, Tenant, User};
use sealwire_protocol::provider::{ProviderPolicy, ProviderToken, UnverifiedProviderToken};
use sealwire_protocol::{ClaimDefect, TokenError};

use crate::authority::{Keys, OutsideKeys, UNKNOWN_KEY};
use crate::issuer::{Grant, Issuer, IssuerError, Minted, TOKEN_LIFETIME_SECONDS};
use crate::issuer_keys::{IssuerKeys, KeySource, Look};
pub(crate) use claims::MappingError;
use claims::{ClaimPath, Template};
pub(crate) use names::{Names, NotInvited};

pub use claims::{ClaimNameDefect, TemplateDefect};

/// Exchange issuers of one relay.
pub const MAX_EXCHANGE_ISSUERS: usize = 64;
/// Words that give scopes, for one issuer.
pub const MAX_SCOPE_WORDS: usize = 1_024;
/// What `typ` in the header of a provider's token may be, by default; the empty text: there is none.
pub const DEFAULT_TYPES: [&str; 3] = ["JWT", "at+jwt", ""];

/// An identity provider whose tokens a relay exchanges, and what they mean here.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use sealwire_jose::{Algorithm, Algorithms};
/// use sealwire_server::issuer_keys::KeySource;
/// use sealwire_server::{ExchangeIssuer, Relay};
///
/// let keys = "https://id.example/realms/acme/protocol/openid-connect/certs";
/// let keys = KeySource::url(keys, None, Algorithms::of(&[Algorithm::Rs256]))?;
/// let acme = ExchangeIssuer::new("https://id.example/realms/acme", "https://relay.example", "acme/", keys)?
///     .user("{employee_number}")?
///     .scope_claim("realm_access.roles")?
///     .scope("chat-user", "sealwire:send sealwire:receive sealwire:publish")?;
/// let relay = Relay::builder("relay-data").exchange(acme);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "an issuer is for a relay's builder"]
pub struct ExchangeIssuer {
    name: IssuerName,
    audience: Box<str>,
    keys: OutsideKeys,
    rules: Rules,
}

/// What the tokens of one issuer mean.
#[derive(Debug)]
struct Rules {
    types: Vec<Box<str>>,
    id_tokens: bool,
    prefix: Box<str>,
    shared_users: bool,
    user: Template,
    tenant: TenantRule,
    scopes_of_all: Option<Scopes>,
    scope_claim: Option<ClaimPath>,
    /// Where there are none, the words are the scopes themselves.
    scopes: BTreeMap<Box<str>, Scopes>,
}

/// Which tenant a user is of.
#[derive(Debug)]
enum TenantRule {
    None,
    /// The prefix and this claim.
    Claim(ClaimPath),
    /// The prefix.
    Prefix,
}

/// What a token allows (docs/protocol.md §5.5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Scopes {
    send: bool,
    receive: bool,
    publish: bool,
    call: bool,
}

/// Why an issuer cannot be exchanged with, or not beside the others of a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExchangeConfigError {
    /// Not the name of an issuer.
    #[error("issuer: {0}")]
    Issuer(NameError),
    /// No audience: tokens that were made for anybody would do.
    #[error("audience: it is empty; say what `aud` of the tokens for this relay contains")]
    Audience,
    /// The prefix is not one.
    #[error(
        "prefix {prefix:?}: it has to be empty, or to begin the names of users and end in a slash, like \"acme/\""
    )]
    Prefix {
        /// What was given.
        prefix: String,
    },
    /// No `typ`, too many, or one that is none.
    #[error(
        "typ: 1 to 16 of at most 255 printable characters each; an empty one stands for none in the token"
    )]
    Types,
    /// The user's template is none.
    #[error("user {template:?}: {defect}")]
    Template {
        /// What was given.
        template: String,
        /// What is wrong with it.
        defect: TemplateDefect,
    },
    /// Not the name of a claim.
    #[error("{key} {claim:?}: {defect}")]
    Claim {
        /// `scope_claim` or `tenant_claim`.
        key: &'static str,
        /// What was given.
        claim: String,
        /// What is wrong with it.
        defect: ClaimNameDefect,
    },
    /// Not one of the scopes there are.
    #[error(
        "scopes {scopes:?}: {word:?} is none; write sealwire:send, sealwire:receive, sealwire:publish and sealwire:call, separated by spaces"
    )]
    Scope {
        /// What was given.
        scopes: String,
        /// What of it is no scope.
        word: String,
    },
    /// A word that no claim could have, or too many of them.
    #[error("scopes: at most {MAX_SCOPE_WORDS} words, none of them empty or with a space in it")]
    ScopeWord,
    /// Nobody would be allowed anything, or it is said twice.
    #[error(
        "the exchange issuer {issuer}: say either what scopes all of its users have, or which claim gives them"
    )]
    Scopes {
        /// Which issuer.
        issuer: IssuerName,
    },
    /// The tenant is to be the prefix, and there is none.
    #[error("the exchange issuer {issuer}: its prefix is to be the tenant, and is empty")]
    TenantOfNoPrefix {
        /// Which issuer.
        issuer: IssuerName,
    },
    /// There is an issuer of the operator's whose tokens are taken as they are.
    #[error(
        "tokens are exchanged for those of the built-in issuer, and this relay has another issuer in its place; take either out"
    )]
    NoBuiltInIssuer,
    /// More than 64.
    #[error("a relay has at most {MAX_EXCHANGE_ISSUERS} exchange issuers")]
    TooMany,
    /// Two with the same `iss`.
    #[error("there are two exchange issuers {issuer}")]
    SameIssuer {
        /// Which issuer.
        issuer: IssuerName,
    },
    /// Two could name the same user.
    #[error(
        "two exchange issuers have the prefix {prefix:?}, so that both could name the same user; give each another, or say for both that they share users"
    )]
    SamePrefix {
        /// Which prefix.
        prefix: String,
    },
    /// Every token has to have a tenant.
    #[error(
        "the exchange issuer {issuer} says nothing of tenants, and this relay requires one; name the claim, or make the prefix the tenant"
    )]
    NoTenant {
        /// Which issuer.
        issuer: IssuerName,
    },
}

impl ExchangeIssuer {
    /// Tokens of `issuer` (its exact `iss`) whose `aud` contains `audience` and that verify with `keys`. Its users' names all begin with `prefix`, which
    /// ends in a slash or is empty, and which no other issuer of the relay has.
    ///
    /// The audience is to be one that the provider puts into access tokens for this relay only. The id of an application, which is in
    /// every ID token for it, is not.
    ///
    /// # Errors
    /// [`ExchangeConfigError`] says which of these it is.
    pub fn new(
        issuer: &str,
        audience: &str,
        prefix: &str,
        keys: KeySource,
    ) -> Result<Self, ExchangeConfigError> {
        Self::with(issuer, audience, prefix, OutsideKeys::Source(keys))
    }

    /// The same, with keys that are known already, or that something else knows.
    ///
    /// # Errors
    /// As [`ExchangeIssuer::new`].
    pub fn with_keys(
        issuer: &str,
        audience: &str,
        prefix: &str,
        keys: impl SignatureVerifier + Send + Sync + 'static,
    ) -> Result<Self, ExchangeConfigError> {
        Self::with(issuer, audience, prefix, OutsideKeys::Given(Arc::new(keys)))
    }

    fn with(
        issuer: &str,
        audience: &str,
        prefix: &str,
        keys: OutsideKeys,
    ) -> Result<Self, ExchangeConfigError> {
        let name = IssuerName::new(issuer).map_err(ExchangeConfigError::Issuer)?;
        if audience.is_empty() {
            return Err(ExchangeConfigError::Audience);
        }
        let is_prefix = prefix.is_empty()
            || prefix.ends_with('/') && !prefix.starts_with('/') && User::new(prefix).is_ok();
        if !is_prefix {
            return Err(ExchangeConfigError::Prefix {
                prefix: prefix.to_owned(),
            });
        }
        Ok(Self {
            name,
            audience: audience.into(),
            keys,
            rules: Rules {
                types: DEFAULT_TYPES.map(Into::into).to_vec(),
                id_tokens: false,
                prefix: prefix.into(),
                shared_users: false,
                user: Template::subject(),
                tenant: TenantRule::None,
                scopes_of_all: None,
                scope_claim: None,
                scopes: BTreeMap::new(),
            },
        })
    }

    /// What `typ` in the header may be, without regard to case; an empty text: it may be missing. By default [`DEFAULT_TYPES`].
    ///
    /// # Errors
    /// [`ExchangeConfigError::Types`].
    pub fn types(mut self, types: &[&str]) -> Result<Self, ExchangeConfigError> {
        let fits = |typ: &&str| typ.len() <= 255 && typ.bytes().all(|byte| byte.is_ascii_graphic());
        if !(1..=16).contains(&types.len()) || !types.iter().all(fits) {
            return Err(ExchangeConfigError::Types);
        }
        self.rules.types = types.iter().map(|typ| (*typ).into()).collect();
        Ok(self)
    }

    /// Takes ID tokens too, which are refused otherwise: for a provider that gives no access tokens that can be read. Whoever runs the application that they
    /// are for could enrol devices of its users. Everything else about a token is checked all the same.
    pub fn id_tokens(mut self, allowed: bool) -> Self {
        self.rules.id_tokens = allowed;
        self
    }

    /// The user's name behind the prefix, from claims in braces: `{sub}` by default, or `{tenant}/{email}`. Only what the provider never gives to another
    /// person should be in it. A dot in a claim's name leads into it, as in `{resource_access.chat.id}`, unless it is written `\.`, or the name contains `://`.
    /// `{{` and `}}` are braces.
    ///
    /// # Errors
    /// [`ExchangeConfigError::Template`].
    pub fn user(mut self, template: &str) -> Result<Self, ExchangeConfigError> {
        self.rules.user =
            Template::parse(template).map_err(|defect| ExchangeConfigError::Template {
                template: template.to_owned(),
                defect,
            })?;
        Ok(self)
    }

    /// All of its users may do this: `sealwire:send sealwire:receive sealwire:publish`, or some of these.
    ///
    /// # Errors
    /// [`ExchangeConfigError::Scope`].
    pub fn scopes(mut self, scopes: &str) -> Result<Self, ExchangeConfigError> {
        self.rules.scopes_of_all = Some(Scopes::parse(scopes)?);
        Ok(self)
    }

    /// What its users may do follows from this claim: words in one text, separated by spaces, or an array of texts. The name is written as in
    /// [`ExchangeIssuer::user`]. Who has no word that gives a scope is refused.
    ///
    /// # Errors
    /// [`ExchangeConfigError::Claim`].
    pub fn scope_claim(mut self, claim: &str) -> Result<Self, ExchangeConfigError> {
        self.rules.scope_claim = Some(claim_path("scope_claim", claim)?);
        Ok(self)
    }

    /// What a word of the claim gives. Without any such word, the words of the claim are the scopes themselves.
    ///
    /// # Errors
    /// [`ExchangeConfigError::Scope`] or [`ExchangeConfigError::ScopeWord`].
    pub fn scope(mut self, word: &str, scopes: &str) -> Result<Self, ExchangeConfigError> {
        let known = self.rules.scopes.len();
        if word.is_empty() || word.contains(' ') || known >= MAX_SCOPE_WORDS {
            return Err(ExchangeConfigError::ScopeWord);
        }
        self.rules
            .scopes
            .insert(word.into(), Scopes::parse(scopes)?);
        Ok(self)
    }

    /// Its users are of the tenant that is the prefix and this claim, a text without a slash (docs/protocol.md §5.7). The user's name has to be within it.
    ///
    /// # Errors
    /// [`ExchangeConfigError::Claim`].
    pub fn tenant_claim(mut self, claim: &str) -> Result<Self, ExchangeConfigError> {
        self.rules.tenant = TenantRule::Claim(claim_path("tenant_claim", claim)?);
        Ok(self)
    }

    /// All of its users are of one tenant, which is the prefix.
    pub fn prefix_is_tenant(mut self) -> Self {
        self.rules.tenant = TenantRule::Prefix;
        self
    }

    /// Others may name its users too: those whom the operator invites, and other issuers that say the same. Whoever signs in as one of them is that
    /// user, so this is right only where all agree on who is who.
    pub fn shared_users(mut self, shared: bool) -> Self {
        self.rules.shared_users = shared;
        self
    }

    /// Whether a relay can have all of these beside each other: what [`RelayBuilder::bind`](crate::RelayBuilder::bind) would say.
    ///
    /// # Errors
    /// [`ExchangeConfigError`] says which of them it cannot, and why.
    pub fn check_together(
        issuers: &[Self],
        require_tenant: bool,
    ) -> Result<(), ExchangeConfigError> {
        if issuers.len() > MAX_EXCHANGE_ISSUERS {
            return Err(ExchangeConfigError::TooMany);
        }
        Names::new(issuers, require_tenant).map(|_| ())
    }

    /// What can be said only when all is said.
    fn check(&self) -> Result<(), ExchangeConfigError> {
        let rules = &self.rules;
        let issuer = || self.name.clone();
        match (&rules.scopes_of_all, &rules.scope_claim) {
            (None, None) | (Some(_), Some(_)) => {
                return Err(ExchangeConfigError::Scopes { issuer: issuer() });
            }
            (Some(_), None) if !rules.scopes.is_empty() => {
                return Err(ExchangeConfigError::Scopes { issuer: issuer() });
            }
            (Some(_), None) | (None, Some(_)) => {}
        }
        match rules.tenant {
            TenantRule::Prefix if rules.prefix.is_empty() => {
                Err(ExchangeConfigError::TenantOfNoPrefix { issuer: issuer() })
            }
            TenantRule::Prefix | TenantRule::Claim(_) | TenantRule::None => Ok(()),
        }
    }
}

fn claim_path(key: &'static str, claim: &str) -> Result<ClaimPath, ExchangeConfigError> {
    ClaimPath::parse(claim).map_err(|defect| ExchangeConfigError::Claim {
        key,
        claim: claim.to_owned(),
        defect,
    })
}

impl Scopes {
    const NONE: Self = Self {
        send: false,
        receive: false,
        publish: false,
        call: false,
    };

    /// One of the scopes there are.
    fn of(word: &str) -> Option<Self> {
        let none = Self::NONE;
        match word {
            "sealwire:send" => Some(Self { send: true, ..none }),
            "sealwire:receive" => Some(Self {
                receive: true,
                ..none
            }),
            "sealwire:publish" => Some(Self {
                publish: true,
                ..none
            }),
            "sealwire:call" => Some(Self { call: true, ..none }),
            _ => None,
        }
    }

    fn parse(text: &str) -> Result<Self, ExchangeConfigError> {
        let refused = |word: &str| ExchangeConfigError::Scope {
            scopes: text.to_owned(),
            word: word.to_owned(),
        };
        let mut scopes = Self::NONE;
        for word in text.split_ascii_whitespace() {
            scopes = scopes.and(Self::of(word).ok_or_else(|| refused(word))?);
        }
        if scopes == Self::NONE {
            return Err(refused(""));
        }
        Ok(scopes)
    }

    fn and(self, other: Self) -> Self {
        Self {
            send: self.send || other.send,
            receive: self.receive || other.receive,
            publish: self.publish || other.publish,
            call: self.call || other.call,
        }
    }

    /// As the claim `scope`.
    fn claim(self) -> String {
        [
            (self.send, "sealwire:send"),
            (self.receive, "sealwire:receive"),
            (self.publish, "sealwire:publish"),
            (self.call, "sealwire:call"),
        ]
        .into_iter()
        .filter_map(|(allowed, scope)| allowed.then_some(scope))
        .collect::<Vec<_>>()
        .join(" ")
    }
}

/// What a provider's token comes to.
#[derive(Debug, PartialEq, Eq)]
struct Mapped {
    user: User,
    tenant: Option<Tenant>,
    scopes: Scopes,
}

impl Rules {
    fn map(&self, claims: &Object) -> Result<Mapped, MappingError> {
        let user = self.user.fill(&self.prefix, claims)?;
        let tenant = match &self.tenant {
            TenantRule::None => None,
            TenantRule::Prefix => Some(names::tenant_of_prefix(&self.prefix)?),
            TenantRule::Claim(claim) => {
                let value = claim.text(claims)?;
                if value.contains('/') {
                    // It could name a part of another tenant.
                    return Err(claim.refused(ClaimDefect::Invalid));
                }
                let tenant = Tenant::new(&format!("{}{value}", self.prefix));
                Some(tenant.map_err(MappingError::Tenant)?)
            }
        };
        if tenant
            .as_ref()
            .is_some_and(|tenant| !tenant.includes(&user))
        {
            return Err(MappingError::OutsideTenant);
        }
        Ok(Mapped {
            user,
            tenant,
            scopes: self.scopes(claims)?,
        })
    }

    fn scopes(&self, claims: &Object) -> Result<Scopes, MappingError> {
        let Some(claim) = &self.scope_claim else {
            return Ok(self.scopes_of_all.unwrap_or(Scopes::NONE));
        };
        let wrong = || claim.refused(ClaimDefect::WrongType);
        let mut scopes = Scopes::NONE;
        let mut add = |word: &str| {
            let given = if self.scopes.is_empty() {
                Scopes::of(word)
            } else {
                self.scopes.get(word).copied()
            };
            scopes = scopes.and(given.unwrap_or(Scopes::NONE));
        };
        match claim.value(claims)? {
            Value::String(words) => words.split(' ').for_each(&mut add),
            Value::Array(words) => {
                for word in words {
                    let Value::String(word) = word else {
                        return Err(wrong());
                    };
                    add(word);
                }
            }
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::OtherNumber
            | Value::Object(_) => return Err(wrong()),
        }
        if scopes == Scopes::NONE {
            return Err(claim.gives_nothing());
        }
        Ok(scopes)
    }
}

/// The exchange issuers of a running relay.
#[derive(Default)]
pub(crate) struct Exchange {
    partners: Vec<Partner>,
    names: Arc<Names>,
}

/// One of them.
struct Partner {
    name: IssuerName,
    audience: Box<str>,
    keys: Keys,
    rules: Rules,
}

/// Why a provider's token is not exchanged. A device is told 4100 or `token_refused` whatever the reason, unless the relay is at fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// Off by default.
    #[error("a provider's token, and this relay exchanges none: it has no exchange issuer")]
    NoExchange,
    /// Malformed, so that nobody knows whose it is.
    #[error("the provider's token: {0}")]
    Malformed(TokenError),
    /// Of somebody else.
    #[error("the provider's token is of none of the {known} issuers whose tokens are exchanged")]
    UnknownIssuer {
        /// How many there are.
        known: usize,
    },
    /// It does not verify.
    #[error("the token of {issuer}: {error}")]
    Token {
        issuer: IssuerName,
        error: TokenError,
    },
    /// Nobody can say yet whether it verifies: the provider may have a newer key.
    #[error(
        "the key of the token of {issuer} is not known, and its key set cannot be looked at again now"
    )]
    KeyNotKnownYet { issuer: IssuerName },
    /// Its claims mean nothing here.
    #[error("the token of {issuer}: {error}")]
    Mapping {
        issuer: IssuerName,
        error: MappingError,
    },
    /// The built-in issuer mints nothing for it.
    #[error("the token of {issuer}: {error}")]
    Issuer {
        issuer: IssuerName,
        error: IssuerError,
    },
}

impl ExchangeError {
    /// Whether the relay is at fault.
    pub(crate) fn is_internal(&self) -> bool {
        matches!(self, Self::Issuer { error, .. } if error.is_internal())
    }

    /// Whether the device was removed.
    pub(crate) fn is_of_removed_device(&self) -> bool {
        matches!(self, Self::Issuer { error, .. } if *error == IssuerError::Removed)
    }
}

impl Exchange {
    /// Looks at all issuers together. `dir`: where the last good key sets are kept.
    pub(crate) fn new(
        issuers: Vec<ExchangeIssuer>,
        require_tenant: bool,
        dir: Option<&Path>,
    ) -> Result<Self, ExchangeConfigError> {
        if issuers.len() > MAX_EXCHANGE_ISSUERS {
            return Err(ExchangeConfigError::TooMany);
        }
        let names = Names::new(&issuers, require_tenant)?;
        let partners = issuers.into_iter().map(|issuer| Partner {
            name: issuer.name,
            audience: issuer.audience,
            keys: issuer.keys.open(dir),
            rules: issuer.rules,
        });
        Ok(Self {
            partners: partners.collect(),
            names: Arc::new(names),
        })
    }

    /// Whose users are whose.
    pub(crate) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// The keys that are fetched.
    pub(crate) fn fetched(&self) -> impl Iterator<Item = &Arc<IssuerKeys>> {
        self.fetched_of().map(|(_, keys)| keys)
    }

    /// The keys that are fetched, each with its issuer.
    pub(crate) fn fetched_of(&self) -> impl Iterator<Item = (&IssuerName, &Arc<IssuerKeys>)> {
        self.partners
            .iter()
            .filter_map(|partner| Some((&partner.name, partner.keys.fetched()?)))
    }

    /// What `aud` of this issuer's tokens has to contain.
    pub(crate) fn audience_of(&self, issuer: &IssuerName) -> &str {
        let partner = self.partners.iter().find(|partner| partner.name == *issuer);
        partner.map_or("", |partner| &partner.audience)
    }

    /// Whether a token says that it is of one of these issuers.
    pub(crate) fn concerns(&self, token: &[u8]) -> bool {
        !self.partners.is_empty() && self.partner_of(token).is_ok()
    }

    /// Exchanges a token that `device` presents, whose key it has proved, for one of `issuer`. `now` is in seconds since 1970.
    pub(crate) fn exchange(
        &self,
        issuer: &Issuer,
        token: &[u8],
        device: &PublicKey,
        now: u64,
    ) -> Result<Minted, ExchangeError> {
        let (unverified, partner, index) = self.partner_of(token)?;
        let policy = ProviderPolicy {
            issuer: &partner.name,
            audience: &partner.audience,
            types: &partner.rules.types,
            id_tokens: partner.rules.id_tokens,
            device: device.thumbprint(),
            max_age: MAX_ATTESTATION_AGE_SECONDS,
            now,
        };
        let name = || partner.name.clone();
        let token = unverified
            .verify(partner.keys.verifier(), &policy)
            .map_err(|error| ExchangeError::Token {
                issuer: name(),
                error,
            })?;
        let mapped = partner
            .rules
            .map(token.claims())
            .and_then(|mapped| {
                if self.names.may_name(index, &mapped.user) {
                    Ok(mapped)
                } else {
                    Err(MappingError::AnotherIssuers)
                }
            })
            .map_err(|error| ExchangeError::Mapping {
                issuer: name(),
                error,
            })?;
        mint(issuer, &token, &mapped, device, now).map_err(|error| ExchangeError::Issuer {
            issuer: name(),
            error,
        })
    }

    /// The same as [`Exchange::exchange`], but where the token names a key that is not known, newer keys are looked for first.
    pub(crate) async fn exchange_or_look(
        &self,
        issuer: &Issuer,
        token: &[u8],
        device: &PublicKey,
        now: u64,
    ) -> Result<Minted, ExchangeError> {
        let exchanged = self.exchange(issuer, token, device, now);
        let Err(error) = &exchanged else {
            return exchanged;
        };
        let Some((name, keys)) = self.unknown_keys(error) else {
            return exchanged;
        };
        match keys.look_again().await {
            Look::Fresh => self.exchange(issuer, token, device, now),
            Look::NotNow => Err(ExchangeError::KeyNotKnownYet {
                issuer: name.clone(),
            }),
        }
    }

    /// Whether the keys may be known soon for which a token was refused: they are being looked for.
    pub(crate) fn looks_again(&self, error: &ExchangeError) -> bool {
        let Some((_, keys)) = self.unknown_keys(error) else {
            return false;
        };
        let keys = Arc::clone(keys);
        tokio::spawn(async move { keys.look_again().await });
        true
    }

    /// Where there may be the keys for want of which a token was refused, and whose.
    fn unknown_keys(&self, error: &ExchangeError) -> Option<(&IssuerName, &Arc<IssuerKeys>)> {
        match error {
            ExchangeError::Token { issuer, error } if *error == UNKNOWN_KEY => {
                self.fetched_of().find(|(name, _)| *name == issuer)
            }
            ExchangeError::Token { .. }
            | ExchangeError::KeyNotKnownYet { .. }
            | ExchangeError::NoExchange
            | ExchangeError::Malformed(_)
            | ExchangeError::UnknownIssuer { .. }
            | ExchangeError::Mapping { .. }
            | ExchangeError::Issuer { .. } => None,
        }
    }

    /// Whose token it says that it is.
    fn partner_of<'t>(
        &self,
        token: &'t [u8],
    ) -> Result<(UnverifiedProviderToken<'t>, &Partner, usize), ExchangeError> {
        if self.partners.is_empty() {
            return Err(ExchangeError::NoExchange);
        }
        let unverified = UnverifiedProviderToken::parse(token).map_err(ExchangeError::Malformed)?;
        let mut partners = self.partners.iter().zip(0..);
        let found = partners.find(|(partner, _)| partner.name == *unverified.issuer());
        match found {
            Some((partner, index)) => Ok((unverified, partner, index)),
            None => Err(ExchangeError::UnknownIssuer {
                known: self.partners.len(),
            }),
        }
    }
}

/// Never newer, longer or more than what the provider said.
fn mint(
    issuer: &Issuer,
    token: &ProviderToken,
    mapped: &Mapped,
    device: &PublicKey,
    now: u64,
) -> Result<Minted, IssuerError> {
    let grant = Grant {
        user: &mapped.user,
        tenant: mapped.tenant.as_ref(),
        scope: &mapped.scopes.claim(),
        details: Some(token.details()),
        id: Some(token.id()),
        issued: token.issued().min(now),
        expires: token
            .expires()
            .min(now.saturating_add(TOKEN_LIFETIME_SECONDS)),
    };
    issuer.mint_exchanged(&grant, device, now)
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.partners.iter().map(|partner| &partner.name))
            .finish()
    }
}

#[cfg(test)]
mod tests;
