//! How many connections there may be, so that they do not take the file descriptors that the stores need.
use crate::bounds::RESERVED_DESCRIPTORS;

/// Raises the number of descriptors that this process may have as far as the system lets it, and says how many of `wanted` connections there may be under it.
pub(crate) fn connections(wanted: usize) -> usize {
    let limit = raised_limit();
    let connections = connections_under(limit, wanted);
    if connections < wanted {
        tracing::warn!(
            ?limit,
            connections,
            "fewer connections than the relay would take: raise the limit of open files"
        );
    }
    connections
}

/// Connections where the process may have `limit` descriptors; `None`: any number. Where there are few, the stores get half of them.
fn connections_under(limit: Option<u64>, wanted: usize) -> usize {
    let wanted = wanted.max(1);
    let Some(limit) = limit else {
        return wanted;
    };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let reserved = RESERVED_DESCRIPTORS.min(limit / 2);
    limit.saturating_sub(reserved).clamp(1, wanted)
}

/// The limit of descriptors (RLIMIT_NOFILE) after raising the soft one to the hard one.
#[cfg(unix)]
fn raised_limit() -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => maximum,
        Err(error) => {
            tracing::debug!(%error, "the limit of open files is not raised");
            current
        }
    }
}

/// Elsewhere nothing is known of a limit.
#[cfg(not(unix))]
fn raised_limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_the_stores() {
        let reserved = RESERVED_DESCRIPTORS;
        let most = 16_384;
        for (limit, connections) in [
            (None, most),
            (Some(u64::MAX), most),
            (Some((most + reserved) as u64), most),
            (Some((most + reserved - 1) as u64), most - 1),
            (Some(2 * reserved as u64), reserved),
            (Some(256), 128),
            (Some(1), 1),
            (Some(0), 1),
        ] {
            assert_eq!(connections_under(limit, most), connections, "{limit:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn the_limit_is_raised_as_far_as_it_goes() {
        use rustix::process::{Resource, getrlimit};

        let raised = raised_limit();
        assert_eq!(getrlimit(Resource::Nofile).current, raised);
    }
}
