//! What is known of the server: its refs, asked for at most once a moment, and its objects, fetched when one is missed.

use std::time::Duration;

use autopack_shared::domain::ids::{FencingToken, Oid};
use autopack_shared::repo::open::to_git;

use super::cache::FETCHED;
use super::listing::Listing;
use super::{RemoteHub, held};
use crate::hub::names::{CLUSTER, FENCE};
use crate::hub::{HubError, fence};

/// Packs in a cache from which on they are put together: each one is looked into for each object.
const MANY_PACKS: usize = 24;

/// How often a fence is read that moves between being listed and being fetched.
const GLIMPSES: u32 = 8;

/// What is known of the server's refs.
#[derive(Default)]
pub(super) struct Known {
    refs: Option<Listing>,
    /// When the server did not answer, and what was said: who asks in the same moment is told so.
    away: Option<(Duration, String)>,
    /// Writes so far: what was asked for before a write and is answered after it is not kept.
    writes: u64,
}

impl RemoteHub {
    pub(super) fn known(&self) -> Option<Listing> {
        held(&self.known).refs.clone()
    }

    pub(super) fn is_recent(&self, refs: &Listing) -> bool {
        self.clock.monotonic().saturating_sub(refs.asked) < self.options.recent
    }

    /// Takes in a write of ours.
    pub(super) fn learn(&self, change: impl FnOnce(&mut Listing)) {
        let mut known = held(&self.known);
        known.writes += 1;
        if let Some(refs) = &mut known.refs {
            change(refs);
        }
    }

    /// Forgets where the refs are: somebody else may move them, or a push of ours may still arrive.
    pub(super) fn forget(&self) {
        let mut known = held(&self.known);
        known.writes += 1;
        known.refs = None;
    }

    /// The refs as they are, or were a moment ago.
    pub(super) fn recent(&self) -> Result<Listing, HubError> {
        let usable = || self.known().filter(|refs| self.is_recent(refs));
        if let Some(refs) = usable() {
            return Ok(refs);
        }
        let asking = held(&self.asking);
        if let Some(refs) = usable() {
            return Ok(refs);
        }
        let moment = self.options.recent;
        if let Some((at, said)) = held(&self.known).away.clone()
            && self.clock.monotonic().saturating_sub(at) < moment
        {
            return Err(self.git.away(said));
        }
        let refs = self.read();
        if let Err(HubError::ServerAway { said, .. }) = &refs {
            held(&self.known).away = Some((self.clock.monotonic(), said.clone()));
        }
        drop(asking);
        refs
    }

    /// Asks the server where its refs are.
    pub(super) fn read(&self) -> Result<Listing, HubError> {
        for _ in 0..GLIMPSES {
            let (asked, writes) = (self.clock.monotonic(), held(&self.known).writes);
            let ended = self.git.talk("ls-remote", &["--symref".to_owned()], &[], self.options.talk)?;
            if !ended.well {
                return Err(self.git.away(ended.complaint));
            }
            let unfit = |lacks| HubError::Unfit { address: self.git.address().to_string(), lacks };
            let mut refs = Listing::parse(&ended.answer).map_err(unfit)?;
            refs.asked = asked;
            if let Some(blob) = refs.fence_blob()? {
                if !self.cache.has(&[blob])? {
                    // The fence alone: who takes over does not wait for all of a repository.
                    self.git.glance(FENCE, self.options.talk)?;
                }
                if !self.cache.has(&[blob])? {
                    // It moved on meanwhile, or the server broke off: then it is asked again here.
                    continue;
                }
                refs.fence = Some(self.fence_in(blob)?);
            }
            let mut known = held(&self.known);
            if known.writes == writes && known.refs.as_ref().is_none_or(|kept| kept.asked <= asked) {
                known.refs = Some(refs.clone());
            }
            return Ok(refs);
        }
        Err(self.git.away("its fence moves faster than it can be read".to_owned()))
    }

    /// Whose hub it is.
    pub(super) fn owner(&self, refs: &Listing) -> Result<Option<String>, HubError> {
        let Some(oid) = refs.tip(CLUSTER)? else { return Ok(None) };
        if !self.cache.has(&[oid])? {
            self.git.glance(CLUSTER, self.options.talk)?;
        }
        let repo = self.cache.repository()?;
        let broke_off = |_| self.git.away("it did not send whose hub it is".to_owned());
        let blob = repo.find_blob(to_git(oid)).map_err(broke_off)?;
        Ok(Some(fence::parse_owner(blob.content())))
    }

    fn fence_in(&self, blob: Oid) -> Result<FencingToken, HubError> {
        let repo = self.cache.repository()?;
        let blob = repo.find_blob(to_git(blob)).map_err(|_| HubError::BadFence)?;
        fence::parse(blob.content()).ok_or(HubError::BadFence)
    }

    /// Fetches when one of these objects is not in the cache. Whether it is there afterwards is the caller's question.
    pub(super) fn need(&self, objects: &[Oid]) -> Result<(), HubError> {
        if self.cache.has(objects)? {
            return Ok(());
        }
        let _alone = self.cache.alone()?;
        if self.cache.has(objects)? {
            return Ok(());
        }
        self.fetch()?;
        self.shrink();
        if self.cache.packs() >= MANY_PACKS {
            match self.git.tidy(self.options.carry) {
                Ok(ended) if ended.well => {}
                Ok(ended) => tracing::warn!(said = ended.complaint, "the packs of a cache could not be put together"),
                Err(error) => tracing::warn!(%error, "the packs of a cache could not be put together"),
            }
        }
        Ok(())
    }

    /// Drops what no ref needs any more, once there may be much of it: whenever the cache has doubled, so that it costs a
    /// share of what was fetched. Just after a fetch the cache's refs are the server's; the cache's turn is the caller's.
    fn shrink(&self) {
        let (was, now) = (self.cache.kept(), self.cache.bytes());
        let Some(was) = was else { return self.cache.keep(now) };
        if now < was.saturating_mul(2).saturating_add(self.options.slack) {
            return;
        }
        match self.git.shrink(self.options.expiry, self.options.carry) {
            Ok(ended) if ended.well => {}
            Ok(ended) => tracing::warn!(said = ended.complaint, "a cache could not be made smaller"),
            Err(error) => tracing::warn!(%error, "a cache could not be made smaller"),
        }
        // Also where it came to nothing: the next try is a doubling away, and not at the next fetch.
        self.cache.keep(self.cache.bytes());
    }

    /// Fetches everything; the cache's turn is the caller's.
    fn fetch(&self) -> Result<(), HubError> {
        let options = ["--no-tags", "--prune", "--no-write-fetch-head", "--no-auto-maintenance", "--quiet"];
        let options = options.map(str::to_owned);
        let ended = self.git.talk("fetch", &options, &FETCHED.map(str::to_owned), self.options.carry);
        if !matches!(&ended, Ok(ended) if ended.well) {
            // One that was ended leaves locks, and nobody else fetches.
            self.cache.unlock()?;
        }
        let ended = ended?;
        if ended.well { Ok(()) } else { Err(self.git.away(ended.complaint)) }
    }
}
