//! Whose users are whose: by the prefixes of the exchange issuers, and by tenants (docs/protocol.md §3.7, §5.7).
//!
//! A name belongs to the issuers with the longest prefix that it begins with; one with none is the operator's to invite.
use sealwire_protocol::name::{Tenant, User};
use sealwire_protocol::permissions::Permissions;

use super::{ExchangeConfigError, ExchangeIssuer, MappingError, TenantRule};

/// Whose users are whose.
#[derive(Debug, Default)]
pub(crate) struct Names {
    /// In the order of the issuers.
    owners: Vec<Owner>,
    require_tenant: bool,
}

/// An issuer, as far as names are concerned.
#[derive(Debug)]
struct Owner {
    prefix: Box<str>,
    shared: bool,
    tenants: Tenants,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tenants {
    None,
    /// The prefix is one.
    One,
    /// Each begins with the prefix.
    Many,
}

/// Why an invited user gets no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotInvited {
    /// The name is an exchange issuer's.
    Reserved,
    /// The name is of no tenant, and has to be.
    NoTenant,
}

impl Names {
    pub(super) fn new(
        issuers: &[ExchangeIssuer],
        require_tenant: bool,
    ) -> Result<Self, ExchangeConfigError> {
        for (issuer, number) in issuers.iter().zip(1..) {
            issuer.check()?;
            let name = || issuer.name.clone();
            if require_tenant && matches!(issuer.rules.tenant, TenantRule::None) {
                return Err(ExchangeConfigError::NoTenant { issuer: name() });
            }
            for other in issuers.iter().skip(number) {
                if other.name == issuer.name {
                    return Err(ExchangeConfigError::SameIssuer { issuer: name() });
                }
                let shared = issuer.rules.shared_users && other.rules.shared_users;
                if other.rules.prefix == issuer.rules.prefix && !shared {
                    return Err(ExchangeConfigError::SamePrefix {
                        prefix: issuer.rules.prefix.as_ref().into(),
                    });
                }
            }
        }
        let owners = issuers.iter().map(|issuer| Owner {
            prefix: issuer.rules.prefix.clone(),
            shared: issuer.rules.shared_users,
            tenants: match issuer.rules.tenant {
                TenantRule::None => Tenants::None,
                TenantRule::Prefix => Tenants::One,
                TenantRule::Claim(_) => Tenants::Many,
            },
        });
        Ok(Self {
            owners: owners.collect(),
            require_tenant,
        })
    }

    /// Whether every token has to have a tenant.
    pub(crate) fn require_tenant(&self) -> bool {
        self.require_tenant
    }

    /// Those whose the name is.
    fn owners_of(&self, user: &User) -> impl Iterator<Item = (usize, &Owner)> {
        let begins = |owner: &&Owner| user.as_str().starts_with(&*owner.prefix);
        let longest = self.owners.iter().filter(begins);
        let longest = longest.map(|owner| owner.prefix.len()).max();
        self.owners
            .iter()
            .enumerate()
            .filter(move |(_, owner)| begins(owner) && Some(owner.prefix.len()) == longest)
    }

    /// Whether the issuer at `index` may name this user, who begins with its prefix.
    pub(super) fn may_name(&self, index: usize, user: &User) -> bool {
        let shares = self.owners.get(index).is_some_and(|owner| owner.shared);
        let mut owners = self.owners_of(user);
        let is_own = self.owners_of(user).any(|(owner, _)| owner == index);
        is_own || shares && owners.all(|(_, owner)| owner.shared)
    }

    /// The tenant of somebody whom the operator invites: what is before the last slash, where there are tenants.
    pub(crate) fn invited(&self, user: &User) -> Result<Option<Tenant>, NotInvited> {
        if self.owners_of(user).any(|(_, owner)| !owner.shared) {
            return Err(NotInvited::Reserved);
        }
        let mut owners = self.owners_of(user).map(|(_, owner)| owner);
        let tenant = match owners.find(|owner| owner.tenants != Tenants::None) {
            Some(owner) if owner.tenants == Tenants::One => tenant_of_prefix(&owner.prefix).ok(),
            // Nobody is of a part of the prefix, which would be of all its tenants.
            Some(owner) => {
                before_last_slash(user).filter(|tenant| tenant.as_str().len() > owner.prefix.len())
            }
            None if self.require_tenant => before_last_slash(user),
            None => return Ok(None),
        };
        match tenant.filter(|tenant| tenant.includes(user)) {
            Some(tenant) => Ok(Some(tenant)),
            None => Err(NotInvited::NoTenant),
        }
    }

    /// Whether whoever has these permissions may write to a user, know of their devices, and hear of changes: what the token says, and that nobody from
    /// outside reaches into tenants.
    pub(crate) fn may_reach(&self, permissions: &Permissions, user: &User, own: &User) -> bool {
        let is_within = |owner: &Owner| match &permissions.tenant {
            _ if owner.tenants == Tenants::None => true,
            Some(tenant) => owner.has(tenant),
            None => false,
        };
        let mut owners = self.owners_of(user).map(|(_, owner)| owner);
        permissions.may_write_to(user, own) && (user == own || owners.all(is_within))
    }
}

impl Owner {
    /// Whether a tenant is one of this issuer's, or a part of one: all of its users begin with the prefix then.
    fn has(&self, tenant: &Tenant) -> bool {
        match tenant.as_str().strip_prefix(&*self.prefix) {
            Some(rest) => !rest.is_empty(),
            None => {
                self.tenants == Tenants::One
                    && self.prefix.strip_suffix('/') == Some(tenant.as_str())
            }
        }
    }
}

/// The prefix without its slash.
pub(super) fn tenant_of_prefix(prefix: &str) -> Result<Tenant, MappingError> {
    let name = prefix.strip_suffix('/').unwrap_or(prefix);
    Tenant::new(name).map_err(MappingError::Tenant)
}

fn before_last_slash(user: &User) -> Option<Tenant> {
    let (tenant, _) = user.as_str().rsplit_once('/')?;
    Tenant::new(tenant).ok()
}
