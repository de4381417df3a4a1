//! The shape of every table: states, events, moves, and what follows from them.

macro_rules! machine {
    (
        $(#[$doc:meta])* $state:ident / $event:ident, $machine:literal;
        states { $($(#[$sdoc:meta])* $s:ident = $sname:literal $($terminal:ident)?,)+ }
        events { $($(#[$edoc:meta])* $e:ident = $ename:literal,)+ }
        moves { $($from:ident + $on:ident => $to:ident;)+ }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $state { $($(#[$sdoc])* $s,)+ }

        #[doc = concat!("What can happen to a ", $machine, ".")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $event { $($(#[$edoc])* $e,)+ }

        impl $event {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$e,)+];
            /// The event's stable word.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$e => $ename,)+ }
            }
        }

        impl $state {
            /// The machine's name in messages and in the store.
            pub const MACHINE: &'static str = $machine;
            /// Every state.
            pub const ALL: &'static [Self] = &[$(Self::$s,)+];
            /// Every legal move.
            pub const MOVES: &'static [(Self, $event, Self)] = &[$((Self::$from, $event::$on, Self::$to),)+];

            /// The state after `event`.
            ///
            /// # Errors
            /// [`IllegalMove`] when the table has no such row.
            pub fn next(self, event: $event) -> Result<Self, IllegalMove> {
                Self::MOVES
                    .iter()
                    .find(|(from, on, _)| *from == self && *on == event)
                    .map(|(_, _, to)| *to)
                    .ok_or(IllegalMove { machine: $machine, from: self.as_str(), event: event.as_str() })
            }

            /// The state's lower-case word, as stored.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$s => $sname,)+ }
            }

            /// Whether the state never changes again.
            #[must_use]
            pub fn is_terminal(self) -> bool {
                match self { $(Self::$s => false $(|| stringify!($terminal) == "terminal")?,)+ }
            }
        }

        impl std::fmt::Display for $state {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $state {
            type Err = UnknownState;
            fn from_str(value: &str) -> Result<Self, UnknownState> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|s| s.as_str() == value)
                    .ok_or_else(|| UnknownState { machine: $machine, value: value.to_owned() })
            }
        }
    };
}

pub(super) use machine;
