//! The servers at one location, each with the connections of one worker to it.

use std::rc::Rc;
use std::sync::Arc;

use tokio::time::Instant;

use super::address::Address;
use super::balance::{Group, Serving};
use super::pool::{Keep, Pool};
use super::spec::Origin;
use crate::exchange::Notes;

/// The servers at one location.
#[derive(Debug)]
pub(super) struct Servers {
    /// Where there is something to choose from.
    choice: Option<Choice>,
    /// One for each address, in their order.
    pools: Vec<Rc<Pool>>,
}

/// What one worker chooses from.
#[derive(Debug)]
struct Choice {
    group: Arc<Group>,
    addresses: Arc<[Arc<Address>]>,
    version: u64,
    turn: usize,
    dice: Dice,
}

/// Numbers by chance, good enough to choose by and free of any lock (xorshift64).
#[derive(Debug)]
struct Dice(u64);

impl Servers {
    pub(super) fn new(
        group: Option<Arc<Group>>,
        origin: impl Fn(usize) -> Origin,
        keep: Keep,
    ) -> Self {
        let Some(group) = group else {
            return Self { choice: None, pools: vec![Rc::new(Pool::new(origin(0), keep))] };
        };
        let (addresses, version) = group.addresses();
        let pools = addresses.iter().map(|address| open(address, &origin, keep)).collect();
        // Many workers should not begin with the same address.
        let turn = rand::random::<u32>() as usize;
        let dice = Dice(rand::random::<u64>() | 1);
        Self { choice: Some(Choice { group, addresses, version, turn, dice }), pools }
    }

    /// All of them.
    pub(super) fn pools(&self) -> &[Rc<Pool>] {
        &self.pools
    }

    /// The server that a call goes to, and its place there.
    pub(super) fn choose(
        &mut self,
        origin: impl Fn(usize) -> Origin,
        keep: Keep,
        notes: &Notes,
    ) -> (Rc<Pool>, Option<Serving>) {
        self.renew(origin, keep);
        let Some(choice) = &mut self.choice else { return (self.pools[0].clone(), None) };
        let Choice { group, addresses, turn, dice, .. } = choice;
        *turn = turn.wrapping_add(1);
        let now = Instant::now();
        let tried = notes.tried();
        let draw = |below| dice.below(below);
        let chosen = match notes.bypass() {
            None => group.pick(addresses, *turn, &tried, draw, now),
            Some(bypass) => {
                let (chosen, would) = group.look_on(addresses, *turn, &tried, draw, now);
                would.into_iter().for_each(|policy| bypass.would(policy));
                chosen
            }
        };
        let address = &addresses[chosen];
        notes.tries(address.id);
        (self.pools[chosen].clone(), Some(group.serve(address, now)))
    }

    /// Closes what has been idle for too long, and what leads to addresses that are gone.
    pub(super) fn sweep(&mut self, origin: impl Fn(usize) -> Origin, keep: Keep) {
        self.renew(origin, keep);
        self.pools.iter().for_each(|pool| pool.sweep());
    }

    /// Takes up addresses that are new, and lets go of those that are gone.
    fn renew(&mut self, origin: impl Fn(usize) -> Origin, keep: Keep) {
        let Some(choice) = &mut self.choice else { return };
        if choice.group.version() == choice.version {
            return;
        }
        let (addresses, version) = choice.group.addresses();
        let pool = |address: &Arc<Address>| {
            let before = choice.addresses.iter().position(|old| Arc::ptr_eq(old, address));
            before.map_or_else(|| open(address, &origin, keep), |at| self.pools[at].clone())
        };
        let pools: Vec<_> = addresses.iter().map(pool).collect();
        let is_gone = |old: &&Rc<Pool>| !pools.iter().any(|pool| Rc::ptr_eq(pool, old));
        self.pools.iter().filter(is_gone).for_each(|old| old.retire());
        self.pools = pools;
        (choice.addresses, choice.version) = (addresses, version);
    }
}

fn open(address: &Address, origin: &impl Fn(usize) -> Origin, keep: Keep) -> Rc<Pool> {
    Rc::new(Pool::new(origin(address.url).at(address.at), keep))
}

impl Dice {
    /// A number below this, which is above zero.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The upper half, spread over the range: without a division.
        (((self.0 >> 32) * limit as u64) >> 32) as usize
    }
}
