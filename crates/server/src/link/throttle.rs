//! How fast frames and bytes are read of a device, of all devices of a user, and of all of a tenant: who sends faster is read later, and loses nothing
//! (docs/protocol.md §5.5).
//!
//! ```text
//!  link ── Throttle ─┬─▶ Meter of the device ─┐
//!                    ├─▶ Meter of its user ───┼─ held by Throttles, so that another link finds them as the last one left them
//!                    └─▶ Meter of its tenant ─┘
//! ```
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sealwire_protocol::key::Thumbprint;
use sealwire_protocol::name::{Tenant, User};
use sealwire_protocol::token::TokenClaims;

use crate::closing::End;
use crate::policy::{Allowance, TIDY_INTERVAL_MILLIS};

/// Nanoseconds in a minute.
const MINUTE: u64 = 60_000_000_000;
/// Nanoseconds of its rate that a meter may be ahead.
const BURST: u64 = 1_000_000_000;
/// Nanoseconds in a millisecond.
const MILLISECOND: u64 = 1_000_000;

/// Whose links are read how fast: the meters of all that have one, and of those that had one and were ahead when it ended.
#[derive(Debug)]
pub(crate) struct Throttles {
    devices: Meters<Thumbprint>,
    users: Meters<User>,
    tenants: Meters<Tenant>,
}

impl Throttles {
    /// Remembers at most `max` of each.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            devices: Meters::new(max),
            users: Meters::new(max),
            tenants: Meters::new(max),
        }
    }

    /// The throttle of a link with a token that says this.
    ///
    /// # Errors
    /// [`End::TooManyMeters`], so that nobody gets a fresh one by filling the memory.
    pub(crate) fn of(&self, claims: &TokenClaims, steady_millis: u64) -> Result<Throttle, End> {
        let tenant = claims.permissions.tenant.as_ref();
        Ok(Throttle {
            device: self.devices.of(&claims.device, steady_millis)?,
            user: self.users.of(&claims.user, steady_millis)?,
            tenant: tenant
                .map(|tenant| self.tenants.of(tenant, steady_millis))
                .transpose()?,
        })
    }
}

/// What a link is read by.
#[derive(Debug)]
pub(crate) struct Throttle {
    device: Arc<Meter>,
    user: Arc<Meter>,
    tenant: Option<Arc<Meter>>,
}

impl Throttle {
    /// Counts what came. `Some`: nothing more is to be read before this moment, in [`crate::now::Now::steady_millis`].
    pub(super) fn spend(
        &self,
        frames: u64,
        bytes: u64,
        allowance: &Allowance,
        steady_millis: u64,
    ) -> Option<u64> {
        let now = steady_millis.saturating_mul(MILLISECOND);
        let device = self.device.take(
            (frames, allowance.frames_per_minute),
            (bytes, allowance.bytes_per_minute),
            now,
        );
        let user = self.user.take(
            (frames, allowance.frames_per_minute_per_user),
            (bytes, allowance.bytes_per_minute_per_user),
            now,
        );
        let tenant = self.tenant.as_ref().map_or(0, |tenant| {
            tenant.take(
                (frames, allowance.frames_per_minute_per_tenant),
                (bytes, allowance.bytes_per_minute_per_tenant),
                now,
            )
        });
        let until = device.max(user).max(tenant);
        (until > now).then(|| until.div_ceil(MILLISECOND))
    }
}

/// What was read of somebody: two leaky buckets (GCRA, as in ATM Forum TM 4.0 §4.4.2). Times are nanoseconds of the steady clock.
#[derive(Debug, Default)]
struct Meter {
    /// When what was read would have come at the allowed rate.
    frames: AtomicU64,
    bytes: AtomicU64,
}

impl Meter {
    /// Counts frames and bytes, each with how many are allowed in a minute, and gives the moment at which neither is more than [`BURST`] ahead.
    fn take(&self, frames: (u64, u64), bytes: (u64, u64), now: u64) -> u64 {
        take(&self.frames, frames, now).max(take(&self.bytes, bytes, now))
    }

    /// Whether a new one would not be the same.
    fn is_ahead(&self, now: u64) -> bool {
        let ahead = |arrival: &AtomicU64| arrival.load(Ordering::Relaxed) > now;
        ahead(&self.frames) || ahead(&self.bytes)
    }
}

fn take(arrival: &AtomicU64, (count, per_minute): (u64, u64), now: u64) -> u64 {
    let cost = count.saturating_mul(MINUTE) / per_minute.max(1);
    let after = |before: u64| before.max(now).saturating_add(cost);
    let before = if count == 0 {
        arrival.load(Ordering::Relaxed)
    } else {
        // Whoever is read at the same time adds to it as well; nothing else hangs on the order.
        let added = arrival.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |before| {
            Some(after(before))
        });
        added.unwrap_or_else(|before| before)
    };
    after(before).saturating_sub(BURST)
}

/// The meter of each `K`.
#[derive(Debug)]
struct Meters<K> {
    known: Mutex<Known<K>>,
    max: usize,
}

#[derive(Debug)]
struct Known<K> {
    by_key: HashMap<K, Arc<Meter>>,
    tidied_millis: u64,
}

impl<K: Eq + Hash + Clone> Meters<K> {
    fn new(max: usize) -> Self {
        Self {
            known: Mutex::new(Known {
                by_key: HashMap::new(),
                tidied_millis: 0,
            }),
            max,
        }
    }

    fn of(&self, key: &K, steady_millis: u64) -> Result<Arc<Meter>, End> {
        // A map is consistent between its own calls, whoever panicked.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(meter) = known.by_key.get(key) {
            return Ok(Arc::clone(meter));
        }
        if known.by_key.len() >= self.max {
            known.tidy(steady_millis);
        }
        if known.by_key.len() >= self.max {
            return Err(End::TooManyMeters);
        }
        let meter = Arc::new(Meter::default());
        known.by_key.insert(key.clone(), Arc::clone(&meter));
        Ok(meter)
    }
}

impl<K> Known<K> {
    /// Forgets whose meter no link has, and that is not ahead. Seldom, so that a full memory costs little.
    fn tidy(&mut self, steady_millis: u64) {
        if steady_millis.saturating_sub(self.tidied_millis) < TIDY_INTERVAL_MILLIS
            && self.tidied_millis != 0
        {
            return;
        }
        self.tidied_millis = steady_millis;
        let now = steady_millis.saturating_mul(MILLISECOND);
        self.by_key
            .retain(|_, meter| Arc::strong_count(meter) > 1 || meter.is_ahead(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a device; its user and tenant may do anything.
    fn allowing(frames: u64, bytes: u64) -> Allowance {
        Allowance {
            frames_per_minute: frames,
            bytes_per_minute: bytes,
            frames_per_minute_per_user: u64::MAX,
            bytes_per_minute_per_user: u64::MAX,
            frames_per_minute_per_tenant: u64::MAX,
            bytes_per_minute_per_tenant: u64::MAX,
            ..Allowance::default()
        }
    }

    struct Setting {
        devices: Meters<u8>,
        users: Meters<&'static str>,
        tenants: Meters<&'static str>,
    }

    impl Setting {
        fn new() -> Self {
            Self {
                devices: Meters::new(9),
                users: Meters::new(9),
                tenants: Meters::new(9),
            }
        }

        /// A link of a device.
        fn link(&self, device: u8, user: &'static str, tenant: Option<&'static str>) -> Throttle {
            Throttle {
                device: self.devices.of(&device, 0).unwrap(),
                user: self.users.of(&user, 0).unwrap(),
                tenant: tenant.map(|tenant| self.tenants.of(&tenant, 0).unwrap()),
            }
        }
    }

    fn alone() -> Throttle {
        Setting::new().link(1, "alice", None)
    }

    #[test]
    fn a_second_s_worth_may_come_at_once_and_the_rest_at_its_rate() {
        // Ten frames a second.
        let (allowance, throttle) = (allowing(600, u64::MAX), alone());
        assert_eq!(throttle.spend(10, 0, &allowance, 5_000), None);
        assert_eq!(throttle.spend(1, 0, &allowance, 5_000), Some(5_100));
        assert_eq!(throttle.spend(1, 0, &allowance, 5_200), None);
        assert_eq!(throttle.spend(1, 0, &allowance, 5_200), Some(5_300));
        // Who was silent has saved a second's worth up, and no more.
        assert_eq!(throttle.spend(10, 0, &allowance, 60_000), None);
        assert_eq!(throttle.spend(1, 0, &allowance, 60_000), Some(60_100));
    }

    #[test]
    fn bytes_and_frames_are_both_bounded() {
        let (allowance, throttle) = (allowing(u64::MAX, 60_000), alone());
        assert_eq!(throttle.spend(1_000_000, 1_000, &allowance, 0), None);
        assert_eq!(throttle.spend(0, 500, &allowance, 0), Some(500));
        // Also where only the other of them comes.
        assert_eq!(throttle.spend(1, 0, &allowance, 0), Some(500));
    }

    #[test]
    fn who_comes_back_finds_the_meter_as_it_was() {
        let (allowance, setting) = (allowing(600, u64::MAX), Setting::new());
        let throttle = setting.link(1, "alice", None);
        assert_eq!(throttle.spend(30, 0, &allowance, 0), Some(2_000));
        drop(throttle);
        let throttle = setting.link(1, "alice", None);
        assert_eq!(throttle.spend(0, 0, &allowance, 500), Some(2_000));
        let another = setting.link(2, "alice", None);
        assert_eq!(another.spend(0, 0, &allowance, 500), None);
    }

    #[test]
    fn devices_of_a_user_and_of_a_tenant_are_read_as_one() {
        let (mut allowance, setting) = (allowing(u64::MAX, u64::MAX), Setting::new());
        allowance.frames_per_minute_per_user = 600;
        allowance.bytes_per_minute_per_tenant = 600;
        let alices = setting.link(1, "alice", Some("acme"));
        let also_alices = setting.link(2, "alice", Some("acme"));
        let bobs = setting.link(3, "bob", Some("acme"));
        let eves = setting.link(4, "eve", Some("globex"));
        let doras = setting.link(5, "dora", None);
        assert_eq!(alices.spend(10, 0, &allowance, 0), None);
        assert_eq!(also_alices.spend(1, 0, &allowance, 0), Some(100));
        assert_eq!(bobs.spend(1, 10, &allowance, 0), None);
        assert_eq!(alices.spend(0, 2, &allowance, 0), Some(200));
        assert_eq!(bobs.spend(1, 0, &allowance, 0), Some(200));
        for another in [eves, doras] {
            assert_eq!(another.spend(1, 1, &allowance, 0), None);
        }
    }

    #[test]
    fn full_memory_forgets_whose_meter_makes_no_difference_and_nobody_else() {
        let (allowance, setting) = (allowing(600, u64::MAX), Setting::new());
        let meter = |device: u8, at| setting.devices.of(&device, at);
        let here = meter(0, 0).unwrap();
        let throttle = setting.link(1, "alice", None);
        assert_eq!(throttle.spend(30, 0, &allowance, 0), Some(2_000));
        drop(throttle);
        for device in 2..9 {
            drop(meter(device, 0).unwrap());
        }
        assert!(meter(9, 1_500).is_ok());
        let left = || setting.devices.known.lock().unwrap().by_key.len();
        assert_eq!(left(), 3);
        assert!(Arc::ptr_eq(&here, &meter(0, 1_500).unwrap()));
        assert!(meter(1, 1_500).unwrap().is_ahead(1_500 * MILLISECOND));
        let held: Vec<_> = (10..16).map(|device| meter(device, 1_500)).collect();
        assert!(held.iter().all(Result::is_ok));
        assert!(matches!(meter(16, 1_600), Err(End::TooManyMeters)));
        assert!(meter(16, 3_500).is_ok());
    }

    #[test]
    fn nothing_overflows() {
        let (allowance, throttle) = (allowing(0, 1), alone());
        let never = throttle.spend(u64::MAX, u64::MAX, &allowance, u64::MAX);
        assert!(never.is_none() || never > Some(u64::MAX / MILLISECOND / 2));
    }
}
