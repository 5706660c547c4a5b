//! Which claims of a provider's token are read, and what a user's name is made of.
use std::fmt;

use sealwire_protocol::ClaimDefect;
use sealwire_protocol::json::{Object, Value};
use sealwire_protocol::limits::MAX_JSON_DEPTH;
use sealwire_protocol::name::{NameError, User};

/// Bytes of a claim's name, and of a template.
const MAX_BYTES: usize = 1_024;
/// Claims in a template.
const MAX_CLAIMS: usize = 8;

/// Why a provider's token, which is good, means nothing to this relay. It names claims and shows none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MappingError {
    /// A claim that is needed is not as it has to be.
    #[error("the claim {claim:?} {defect}")]
    Claim {
        /// Which claim, as it was configured.
        claim: Box<str>,
        /// What is wrong with it.
        defect: ClaimDefect,
    },
    /// A claim would end elsewhere in the user's name, so that two users could have one name.
    #[error("the claim {claim:?} contains {separator:?}, which follows it in the user's name")]
    Separator {
        /// Which claim, as it was configured.
        claim: Box<str>,
        /// What follows it.
        separator: char,
    },
    /// An e-mail address, and the provider does not say that it is the person's for certain.
    #[error("the claim {claim:?} counts only where the claim {verified:?} beside it is true")]
    UnverifiedEmail {
        /// Which claim, as it was configured.
        claim: Box<str>,
        /// The claim that has to be true.
        verified: Box<str>,
    },
    /// The name is none.
    #[error("the claims make no name of a user: {0}")]
    User(NameError),
    /// The tenant is none.
    #[error("the claims make no name of a tenant: {0}")]
    Tenant(NameError),
    /// The user would be one of another tenant.
    #[error("the user's name does not begin with the tenant and a slash")]
    OutsideTenant,
    /// The user would be one of another issuer.
    #[error("the user's name begins with the prefix of another exchange issuer")]
    AnotherIssuers,
    /// The user may do nothing here.
    #[error("the claim {claim:?} has no word that gives a scope")]
    NoScope {
        /// Which claim, as it was configured.
        claim: Box<str>,
    },
}

/// What is wrong with a claim's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClaimNameDefect {
    /// There is nothing, or nothing between two dots.
    #[error("a part of the claim's name is empty")]
    Empty,
    /// Longer than any.
    #[error("the claim's name is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Deeper than a token may be nested.
    #[error(
        "the claim lies deeper than a token may be nested; a dot that is part of a name is written \\."
    )]
    TooDeep,
    /// A backslash before something else than a dot or a backslash.
    #[error("a backslash stands only before a dot or another backslash")]
    Escape,
}

/// What is wrong with a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateDefect {
    /// Longer than any.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// Everybody would be one user.
    #[error("it names no claim; write one in braces, like {{sub}}")]
    NoClaim,
    /// More than 8.
    #[error("it names more than {MAX_CLAIMS} claims")]
    TooManyClaims,
    /// A brace without the other.
    #[error(
        "a brace is not closed, or not opened; a brace that is part of the name is written twice"
    )]
    Brace,
    /// Nobody could tell where one ends.
    #[error("two claims have nothing between them, so that two users could have one name")]
    Adjacent,
    /// A claim has a name that it cannot have.
    #[error("{0}")]
    Claim(ClaimNameDefect),
}

/// Where a claim is.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ClaimPath {
    written: Box<str>,
    parts: Vec<Box<str>>,
}

impl ClaimPath {
    /// Dots lead into objects, but in a name that is a URL.
    pub(super) fn parse(name: &str) -> Result<Self, ClaimNameDefect> {
        if name.len() > MAX_BYTES {
            return Err(ClaimNameDefect::TooLong);
        }
        let parts = if name.contains("://") {
            vec![name.into()]
        } else {
            split(name)?
        };
        if parts.len() > MAX_JSON_DEPTH {
            return Err(ClaimNameDefect::TooDeep);
        }
        Ok(Self {
            written: name.into(),
            parts,
        })
    }

    pub(super) fn value<'o>(&self, claims: &'o Object) -> Result<&'o Value, MappingError> {
        let (last, within) = self.find(claims)?;
        within
            .member(last)
            .ok_or_else(|| self.refused(ClaimDefect::Missing))
    }

    /// The claim's name without what leads to it, and the object that it is in, if it is there.
    fn find<'s, 'o>(&'s self, claims: &'o Object) -> Result<(&'s str, &'o Object), MappingError> {
        let missing = || self.refused(ClaimDefect::Missing);
        let (last, objects) = self.parts.split_last().ok_or_else(missing)?;
        let mut within = claims;
        for part in objects {
            within = match within.member(part) {
                Some(Value::Object(object)) => object,
                Some(_) => return Err(self.refused(ClaimDefect::WrongType)),
                None => return Err(missing()),
            };
        }
        Ok((last, within))
    }

    /// A text that is not empty; an e-mail address only if it is the person's (OpenID Connect Core 1.0 §5.1).
    pub(super) fn text<'o>(&self, claims: &'o Object) -> Result<&'o str, MappingError> {
        let (name, within) = self.find(claims)?;
        if is_email(name) {
            let verified = format!("{name}_verified");
            if within.member(&verified) != Some(&Value::Bool(true)) {
                return Err(MappingError::UnverifiedEmail {
                    claim: self.written.clone(),
                    verified: verified.into(),
                });
            }
        }
        match self.value(claims)? {
            Value::String(text) if text.is_empty() => Err(self.refused(ClaimDefect::Invalid)),
            Value::String(text) => Ok(text),
            Value::Null
            | Value::Bool(_)
            | Value::Integer(_)
            | Value::OtherNumber
            | Value::Array(_)
            | Value::Object(_) => Err(self.refused(ClaimDefect::WrongType)),
        }
    }

    pub(super) fn refused(&self, defect: ClaimDefect) -> MappingError {
        MappingError::Claim {
            claim: self.written.clone(),
            defect,
        }
    }

    pub(super) fn gives_nothing(&self) -> MappingError {
        MappingError::NoScope {
            claim: self.written.clone(),
        }
    }
}

/// Whether a claim of this name is an e-mail address: `email`, also behind a namespace.
fn is_email(name: &str) -> bool {
    let name = name.rsplit('/').next().unwrap_or_default();
    name.eq_ignore_ascii_case("email")
}

fn split(name: &str) -> Result<Vec<Box<str>>, ClaimNameDefect> {
    let (mut parts, mut part) = (Vec::new(), String::new());
    let mut characters = name.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => match characters.next() {
                Some(escaped @ ('.' | '\\')) => part.push(escaped),
                Some(_) | None => return Err(ClaimNameDefect::Escape),
            },
            '.' => parts.push(std::mem::take(&mut part).into_boxed_str()),
            other => part.push(other),
        }
    }
    parts.push(part.into_boxed_str());
    if parts.iter().any(|part| part.is_empty()) {
        return Err(ClaimNameDefect::Empty);
    }
    Ok(parts)
}

/// The names of configured claims are no secret.
impl fmt::Debug for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.written, f)
    }
}

/// What a user's name is made of. No two different sets of values give the same name: what stands between two claims is not in the first of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    start: Box<str>,
    /// Each claim, and the text behind it.
    claims: Vec<(ClaimPath, Box<str>)>,
}

impl Template {
    /// `{sub}`
    pub(super) fn subject() -> Self {
        let subject = ClaimPath {
            written: "sub".into(),
            parts: vec!["sub".into()],
        };
        Self {
            start: "".into(),
            claims: vec![(subject, "".into())],
        }
    }

    pub(super) fn parse(template: &str) -> Result<Self, TemplateDefect> {
        if template.len() > MAX_BYTES {
            return Err(TemplateDefect::TooLong);
        }
        let (mut start, mut claims) = (String::new(), Vec::<(ClaimPath, String)>::new());
        let mut rest = template;
        while let Some(character) = rest.chars().next() {
            let is_doubled = rest.starts_with("{{") || rest.starts_with("}}");
            if character == '{' && !is_doubled {
                if claims.last().is_some_and(|(_, behind)| behind.is_empty()) {
                    return Err(TemplateDefect::Adjacent);
                }
                let after = rest.strip_prefix('{').unwrap_or_default();
                let (name, after) = after.split_once('}').ok_or(TemplateDefect::Brace)?;
                if name.contains('{') {
                    return Err(TemplateDefect::Brace);
                }
                let claim = ClaimPath::parse(name).map_err(TemplateDefect::Claim)?;
                claims.push((claim, String::new()));
                rest = after;
                continue;
            }
            if character == '}' && !is_doubled {
                return Err(TemplateDefect::Brace);
            }
            let text = claims.last_mut().map_or(&mut start, |(_, behind)| behind);
            text.push(character);
            let taken = character.len_utf8() + usize::from(is_doubled);
            rest = rest.get(taken..).unwrap_or_default();
        }
        if claims.is_empty() {
            return Err(TemplateDefect::NoClaim);
        }
        if claims.len() > MAX_CLAIMS {
            return Err(TemplateDefect::TooManyClaims);
        }
        Ok(Self {
            start: start.into(),
            claims: claims
                .into_iter()
                .map(|(claim, behind)| (claim, behind.into()))
                .collect(),
        })
    }

    /// The user whom the claims name, behind `prefix`.
    pub(super) fn fill(&self, prefix: &str, claims: &Object) -> Result<User, MappingError> {
        let mut name = format!("{prefix}{}", self.start);
        let last = self.claims.len();
        for ((claim, behind), number) in self.claims.iter().zip(1..) {
            let value = claim.text(claims)?;
            // What follows the last is the end of every name.
            if number < last
                && let Some(separator) = behind.chars().next()
                && value.contains(separator)
            {
                return Err(MappingError::Separator {
                    claim: claim.written.clone(),
                    separator,
                });
            }
            name.push_str(value);
            name.push_str(behind);
        }
        User::new(&name).map_err(MappingError::User)
    }
}
