//! What campaigns count.

/// Defines counts that the seeds of a campaign add up.
macro_rules! tally {
    ($(#[$all:meta])* pub struct $name:ident { $($(#[$one:meta])* pub $count:ident: u64,)* }) => {
        $(#[$all])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct $name {
            $($(#[$one])* pub $count: u64,)*
        }

        impl $name {
            /// Adds another seed's.
            pub fn add(&mut self, other: &Self) {
                $(self.$count += other.$count;)*
            }
        }
    };
}
