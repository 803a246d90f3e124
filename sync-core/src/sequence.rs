//! Sequences from strangers: what they claim to hold is not made room for before it is there.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};

/// Reads a sequence of at most `MAX` elements, element by element. (The derived code makes room for up to 1 MiB
/// as soon as a length is claimed, and counts when all is read.)
pub(crate) fn at_most<'de, D: Deserializer<'de>, T: Deserialize<'de>, const MAX: usize>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    struct Elements<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Elements<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "at most {MAX} elements")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = sequence.next_element()? {
                if elements.len() == MAX {
                    return Err(A::Error::custom("too many elements"));
                }
                elements.push(element);
            }
            Ok(elements)
        }
    }

    deserializer.deserialize_seq(Elements::<T, MAX>(PhantomData))
}

/// Reads a sequence of any length.
pub(crate) fn as_it_comes<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    at_most::<D, T, { usize::MAX }>(deserializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Three(#[serde(deserialize_with = "at_most::<_, _, 3>")] Vec<u8>);

    #[test]
    fn b77_a_sequence_ends_at_its_limit() {
        assert_eq!(postcard::from_bytes::<Three>(&[3, 7, 8, 9]).expect("three").0, [7, 8, 9]);
        assert!(postcard::from_bytes::<Three>(&[4, 7, 8, 9, 10]).is_err());
        assert!(postcard::from_bytes::<Three>(&[3, 7]).is_err());
    }
}
