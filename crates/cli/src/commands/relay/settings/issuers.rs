//! Identity providers: one whose tokens name devices, `[issuer]`, and those whose tokens are exchanged, `[[exchange]]`.

use std::path::PathBuf;

use sealwire_jose::{Algorithm, Algorithms};
use sealwire_protocol::name;
use sealwire_server::exchange::{DEFAULT_TYPES, ExchangeConfigError, ExchangeIssuer};
use sealwire_server::issuer_keys::KeySource;

use super::keys::{Key, Keys, Setting};
use super::kind::{Bool, File, FileOr, List, OneOrTable, Text, Texts, Word};
use super::layers::{Problem, Source};
use super::missing;

/// An identity provider: who it is, and what its tokens are signed with.
#[derive(Debug)]
pub(in super::super) struct Provider {
    pub(in super::super) name: Setting<name::Issuer>,
    pub(super) audience: String,
    pub(in super::super) jwks: Setting<Jwks>,
    jwks_trust: Option<Setting<PathBuf>>,
    algorithms: Vec<Algorithm>,
    /// What its settings are called.
    section: String,
}

/// A provider whose tokens are exchanged, and what they mean.
#[derive(Debug)]
pub(in super::super) struct Exchange {
    pub(in super::super) provider: Provider,
    prefix: Setting<String>,
    types: Setting<Vec<String>>,
    id_tokens: bool,
    user: Setting<String>,
    scopes: Option<Setting<Texts>>,
    scope_claim: Option<Setting<String>>,
    tenant_claim: Option<Setting<String>>,
    prefix_is_tenant: bool,
    shared_users: bool,
}

/// Where a key set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Jwks {
    Url(String),
    File(PathBuf),
}

impl Provider {
    /// The one whose tokens are taken as they are, if there is one.
    pub(super) fn direct(keys: &mut Keys<'_>) -> Option<Self> {
        keys.section("issuer");
        let about = "Takes the tokens of this issuer, its exact `iss`, instead of inviting people. They name the device's key in `cnf`.";
        Self::read(keys, about, None)
    }

    /// `begins`: where its section begins, if that is there only for a provider.
    fn read(keys: &mut Keys<'_>, about: &'static str, begins: Option<&Source>) -> Option<Self> {
        let name = keys.optional(
            Key::new("issuer", about).flag("--issuer"),
            &Word {
                what: "1 to 255 bytes without control characters, exactly as in `iss`",
                read: |text| name::Issuer::new(text).ok(),
                show: |issuer| issuer.as_str().to_owned(),
            },
            "https://id.example",
        );
        let audience = keys.optional(
            Key::new("audience", "What `aud` of its tokens has to contain: a name that it puts into tokens for this relay only.").flag("--audience"),
            &text("text, exactly as in `aud`"),
            "https://relay.example",
        );
        let jwks = keys.optional(
            Key::new("jwks", "Its key set: an https URL, which is asked again now and then, or a file, which is read again when it has changed.")
                .flag("--jwks"),
            &FileOr {
                what: "an https URL, or the name of a file",
                read: |text| text.contains("://").then(|| Jwks::Url(text.to_owned())),
                file: Jwks::File,
                show: |jwks| match jwks {
                    Jwks::Url(url) => url.clone(),
                    Jwks::File(file) => file.to_string_lossy().into_owned(),
                },
            },
            "https://id.example/keys",
        );
        let jwks_trust = keys.optional(
            Key::new("jwks_trust", "Certificates in PEM that may vouch for the key set's server, instead of the system's.").flag("--jwks-trust"),
            &File {
                what: "a file with certificates in PEM",
            },
            "/etc/sealwire/id-ca.pem",
        );
        let algorithms = keys.setting(
            Key::new("algorithms", "Algorithms that its tokens may be signed with. Each has a public key: a secret would let every relay sign.")
                .flag("--algorithm"),
            &List(Word {
                what: "one of \"EdDSA\", \"ES256\", \"ES384\", \"PS256\", \"RS256\"",
                read: algorithm,
                show: |algorithm| algorithm.name().to_owned(),
            }),
            Algorithms::PUBLIC_KEY.iter().collect(),
        );
        if algorithms.value.is_empty() {
            let path = keys.path("algorithms");
            keys.problem(
                &algorithms.source,
                format!("{path} is empty: no token would be accepted"),
            );
        }
        let said = [
            name.as_ref().map(|setting| &setting.source),
            audience.as_ref().map(|setting| &setting.source),
            jwks.as_ref().map(|setting| &setting.source),
            jwks_trust.as_ref().map(|setting| &setting.source),
            Some(&algorithms.source).filter(|source| **source != Source::Default),
        ];
        let source = begins.or(said.into_iter().flatten().max())?.clone();
        let (Some(name), Some(audience), Some(jwks)) = (name, audience, jwks) else {
            for key in ["issuer", "audience", "jwks"] {
                let why = "an identity provider needs issuer, audience and jwks";
                missing(keys, &source, key, why);
            }
            return None;
        };
        if let (Jwks::File(_), Some(trust)) = (&jwks.value, &jwks_trust) {
            let (trusted, path) = (keys.path("jwks_trust"), keys.path("jwks"));
            keys.problem(
                &trust.source,
                format!("{trusted} is for an {path} that is a URL"),
            );
        }
        Some(Self {
            name,
            audience: audience.value,
            jwks,
            jwks_trust,
            algorithms: algorithms.value,
            section: keys.path("jwks"),
        })
    }

    /// Where its keys come from.
    ///
    /// # Errors
    /// What is wrong, and with which setting.
    pub(in super::super) fn source(&self) -> Result<KeySource, Problem> {
        let algorithms = self.algorithms();
        match &self.jwks.value {
            Jwks::File(file) => Ok(KeySource::file(file, algorithms)),
            Jwks::Url(url) => {
                let trust = self.jwks_trust.as_ref().map(|trust| trust.value.as_path());
                KeySource::url(url, trust, algorithms).map_err(|error| Problem {
                    source: self.jwks.source.clone(),
                    message: format!("{} is {url:?}: {error}", self.section),
                })
            }
        }
    }

    /// What its tokens may be signed with.
    pub(in super::super) fn algorithms(&self) -> Algorithms {
        Algorithms::of(&self.algorithms)
    }

    /// In place of its keys, where it does not matter which they are.
    fn no_keys(&self) -> KeySource {
        KeySource::file("", self.algorithms())
    }

    /// What the setting of its keys is called.
    pub(in super::super) fn jwks_path(&self) -> &str {
        &self.section
    }
}

impl Exchange {
    /// Those whose tokens are exchanged, which have to fit together.
    pub(super) fn all(
        keys: &mut Keys<'_>,
        direct: &Option<Provider>,
        require_tenant: bool,
    ) -> Vec<Self> {
        let before = keys.problems.len();
        let all = keys.sections("exchange", Self::read);
        let Some(last) = all.last().map(|last| &last.provider.name.source) else {
            return all;
        };
        if keys.problems.len() > before {
            // Of what is wrong with one of them, others may be a consequence.
            return all;
        }
        let issuers = all.iter().map(|one| one.with(one.provider.no_keys()));
        let issuers: Vec<_> = issuers.filter_map(Result::ok).collect();
        let together = if direct.is_some() {
            Err(ExchangeConfigError::NoBuiltInIssuer)
        } else {
            ExchangeIssuer::check_together(&issuers, require_tenant)
        };
        if let Err(error) = together {
            keys.problem(last, error.to_string());
        }
        all
    }

    fn read(keys: &mut Keys<'_>, begins: &Source) -> Option<Self> {
        let about = "Exchanges the tokens of this issuer, which name no device, for tokens of the relay's own. There may be several such sections.";
        let provider = Provider::read(keys, about, Some(begins));
        let prefix = keys.setting(
            Key::new("prefix", "What all of its users' names begin with: empty, or ending in a slash. No two providers have the same."),
            &Text {
                what: "what ends in a slash, or an empty text",
                empty: true,
            },
            String::new(),
        );
        let types = keys.setting(
            Key::new(
                "typ",
                "What `typ` in a token's header may be; an empty text: it may be missing.",
            ),
            &List(Text {
                what: "a type, or an empty text",
                empty: true,
            }),
            DEFAULT_TYPES.map(str::to_owned).to_vec(),
        );
        let id_tokens = keys.setting(
            Key::new("id_tokens", "Whether ID tokens are taken, too: only for a provider whose access tokens cannot be read."),
            &Bool,
            false,
        );
        let user = keys.setting(
            Key::new("user", "A user's name behind the prefix, from claims in braces that the provider never gives to somebody else."),
            &text("a name with claims in braces, as in \"{sub}\""),
            "{sub}".to_owned(),
        );
        let scope_claim = keys.optional(
            Key::new("scope_claim", "The claim that says what a user may do: words in a text, or a list of them. A dot leads into a claim."),
            &text("the name of a claim"),
            "realm_access.roles",
        );
        let scopes = keys.optional(
            Key::new("scopes", "Without scope_claim: what all of its users may do.\n\
                With it: what each word of the claim gives, in a table [exchange.scopes]. Without, the words are the scopes."),
            &OneOrTable {
                what: "a list of sealwire:send, sealwire:receive and sealwire:publish, or a table from words to such lists",
            },
            "sealwire:send sealwire:receive sealwire:publish",
        );
        let tenant_claim = keys.optional(
            Key::new(
                "tenant_claim",
                "The claim that, behind the prefix, is the tenant: its users see nobody else.",
            ),
            &text("the name of a claim"),
            "org",
        );
        let prefix_is_tenant = keys.setting(
            Key::new(
                "prefix_is_tenant",
                "Whether the prefix is the tenant of all of its users.",
            ),
            &Bool,
            false,
        );
        let shared_users = keys.setting(
            Key::new("shared_users", "Whether others may name the same users: those who are invited, and providers that say the same."),
            &Bool,
            false,
        );
        let exchange = Self {
            provider: provider?,
            prefix,
            types,
            id_tokens: id_tokens.value,
            user,
            scopes,
            scope_claim,
            tenant_claim,
            prefix_is_tenant: prefix_is_tenant.value,
            shared_users: shared_users.value,
        };
        if let Err((source, error)) = exchange.with(exchange.provider.no_keys()) {
            let section = keys.path("");
            let section = section.trim_end_matches('.');
            keys.problem(source.unwrap_or(begins), format!("{section}: {error}"));
        }
        Some(exchange)
    }

    /// What the relay is told of it.
    ///
    /// # Errors
    /// What is wrong with its keys. Everything else was found when it was read.
    pub(super) fn issuer(&self) -> Result<ExchangeIssuer, Problem> {
        let source = self.provider.source()?;
        self.with(source).map_err(|(source, error)| Problem {
            source: source.cloned().unwrap_or(Source::Default),
            message: error.to_string(),
        })
    }

    /// The error comes with the setting that it is about, if it is about one.
    fn with(
        &self,
        keys: KeySource,
    ) -> Result<ExchangeIssuer, (Option<&Source>, ExchangeConfigError)> {
        let of = |source| move |error| (Some(source), error);
        let name = self.provider.name.value.as_str();
        let audience = &self.provider.audience;
        let mut issuer = ExchangeIssuer::new(name, audience, &self.prefix.value, keys)
            .map_err(of(&self.prefix.source))?
            .id_tokens(self.id_tokens)
            .shared_users(self.shared_users);
        let types: Vec<_> = self.types.value.iter().map(String::as_str).collect();
        issuer = issuer.types(&types).map_err(of(&self.types.source))?;
        issuer = issuer
            .user(&self.user.value)
            .map_err(of(&self.user.source))?;
        if let Some(claim) = &self.scope_claim {
            issuer = issuer
                .scope_claim(&claim.value)
                .map_err(of(&claim.source))?;
        }
        match self
            .scopes
            .as_ref()
            .map(|scopes| (&scopes.value, &scopes.source))
        {
            Some((Texts::One(scopes), source)) => {
                issuer = issuer.scopes(scopes).map_err(of(source))?;
            }
            Some((Texts::Table(words), source)) => {
                for (word, scopes) in words {
                    issuer = issuer.scope(word, scopes).map_err(of(source))?;
                }
            }
            None => {}
        }
        if let Some(claim) = &self.tenant_claim {
            issuer = issuer
                .tenant_claim(&claim.value)
                .map_err(of(&claim.source))?;
        }
        if self.prefix_is_tenant {
            issuer = issuer.prefix_is_tenant();
        }
        Ok(issuer)
    }
}

/// An algorithm with a public key: a secret that every relay has could be used by each to sign.
pub(in super::super) fn algorithm(name: &str) -> Option<Algorithm> {
    Algorithm::from_name(name).filter(|algorithm| Algorithms::PUBLIC_KEY.allows(*algorithm))
}

const fn text(what: &'static str) -> Text {
    Text { what, empty: false }
}
