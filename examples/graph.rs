//! A graph of airports: nodes and edges of 64 bytes each. A node names its first edge,
//! an edge the next one of its node, so that each step is one look-up by id.
//!
//! ```sh
//! cargo run --release --example graph -- /var/tmp/graph data/flights-sample.csv
//! ```

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;

use bulla::engine::{Batch, Level, RECORD_LEN, Receipt, Record, Store, StoreOptions};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

type Error = Box<dyn std::error::Error + Send + Sync>;

/// A node or an edge as it is stored; which one, its id says.
#[derive(Clone, Copy, PartialEq, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Item {
    id: U32,
    /// Of a node its first edge, of an edge the next one; 0 for none.
    next: U32,
    /// Of an edge: where it leads.
    to: U32,
    /// Of a node: its airport.
    name: [u8; 4],
    /// Of an edge: how many flights went there.
    flights: U64,
    reserved: [u8; 40],
}

/// Ids of edges begin here, those of nodes end.
const FIRST_EDGE: u32 = 1 << 24;

impl Record for Item {
    const NAME: &'static str = "example.com/graph-item";

    type Id = u32;
    type Invalid = std::convert::Infallible;

    fn from_bytes(bytes: &[u8; RECORD_LEN]) -> Result<Self, Self::Invalid> {
        Ok(zerocopy::transmute!(*bytes))
    }

    fn as_bytes(&self) -> &[u8; RECORD_LEN] {
        zerocopy::transmute_ref!(self)
    }

    fn id(&self) -> u32 {
        self.id.get()
    }
}

/// The graph. One thread changes it; any number may read meanwhile.
struct Graph {
    items: Store<Item>,
    /// An index that is made anew at each opening: the store knows ids only.
    by_name: HashMap<[u8; 4], u32>,
    next_node: u32,
    next_edge: u32,
    last: Option<Receipt>,
}

impl Graph {
    fn open(dir: &Path) -> Result<Self, Error> {
        let items: Store<Item> = Store::open_records(dir, &StoreOptions::new())?;
        let mut by_name = HashMap::new();
        let (mut next_node, mut next_edge) = (1, FIRST_EDGE);
        for item in items.iter()? {
            if item.id() < FIRST_EDGE {
                by_name.insert(item.name, item.id());
                next_node = next_node.max(item.id() + 1);
            } else {
                next_edge = next_edge.max(item.id().saturating_add(1));
            }
        }
        Ok(Self { items, by_name, next_node, next_edge, last: None })
    }

    /// The node of an airport, which is made if there is none.
    fn node(&mut self, name: [u8; 4]) -> Result<u32, Error> {
        if let Some(id) = self.by_name.get(&name) {
            return Ok(*id);
        }
        let id = self.next_node;
        if id >= FIRST_EDGE {
            return Err("there are too many nodes".into());
        }
        self.put(&[Item { name, ..item(id) }])?;
        self.by_name.insert(name, id);
        self.next_node += 1;
        Ok(id)
    }

    /// Adds a flight: to the edge between the two, or by a new edge and its node, which
    /// are changed together.
    fn flight(&mut self, from: u32, to: u32) -> Result<(), Error> {
        let found = self.edges(from).find(|edge| edge.to.get() == to);
        if let Some(edge) = found {
            return self.put(&[Item { flights: edge.flights + 1, ..edge }]);
        }
        let node = self.items.get(from)?.ok_or("there is no such node")?;
        let id = self.next_edge;
        if id == u32::MAX {
            return Err("there are too many edges".into());
        }
        let edge = Item { next: node.next, to: to.into(), flights: 1.into(), ..item(id) };
        self.put(&[edge, Item { next: id.into(), ..node }])?;
        self.next_edge += 1;
        Ok(())
    }

    fn put(&mut self, items: &[Item]) -> Result<(), Error> {
        let mut batch = Batch::new();
        for item in items {
            batch.put(item);
        }
        self.last = Some(self.items.at(Level::Balanced).begin().apply(&batch)?);
        Ok(())
    }

    fn item(&self, id: u32) -> Option<Item> {
        self.items.get(id).expect("opening has looked at all of them: they are in memory")
    }

    fn edges(&self, node: u32) -> impl Iterator<Item = Item> {
        let first = self.item(node).map_or(0, |node| node.next.get());
        std::iter::successors(self.item(first), |edge| self.item(edge.next.get()))
    }

    /// The shortest way along edges, by their number.
    fn way(&self, from: u32, to: u32) -> Option<Vec<u32>> {
        let mut seen = HashSet::from([from]);
        let mut ways = VecDeque::from([vec![from]]);
        while let Some(way) = ways.pop_front() {
            let here = *way.last()?;
            if here == to {
                return Some(way);
            }
            for edge in self.edges(here) {
                if seen.insert(edge.to.get()) {
                    ways.push_back([&way[..], &[edge.to.get()]].concat());
                }
            }
        }
        None
    }

    fn name(&self, node: u32) -> String {
        let name = self.item(node).map_or([0; 4], |node| node.name);
        String::from_utf8_lossy(&name).trim_end_matches('\0').to_owned()
    }
}

const fn item(id: u32) -> Item {
    Item {
        id: U32::new(id),
        next: U32::ZERO,
        to: U32::ZERO,
        name: [0; 4],
        flights: U64::ZERO,
        reserved: [0; 40],
    }
}

fn code(text: &str) -> Result<[u8; 4], Error> {
    let mut name = [0; 4];
    let bytes = text.as_bytes();
    name.get_mut(..bytes.len()).ok_or("an airport has a code of 4 letters")?.copy_from_slice(bytes);
    Ok(name)
}

/// Adds the flights of a CSV file, there and back; returns how many.
fn load(graph: &mut Graph, csv: &Path) -> Result<u64, Error> {
    let text = std::fs::read_to_string(csv)?;
    let mut lines = text.lines();
    let head: Vec<_> = lines.next().ok_or("the file is empty")?.split(',').collect();
    let at = |name| head.iter().position(|column| *column == name).ok_or("no such column");
    let (origin, dest) = (at("origin")?, at("dest")?);
    let mut flights = 0;
    for line in lines {
        let fields: Vec<_> = line.split(',').collect();
        let field = |at: usize| fields.get(at).copied().ok_or("a line is too short");
        let from = graph.node(code(field(origin)?)?)?;
        let to = graph.node(code(field(dest)?)?)?;
        graph.flight(from, to)?;
        graph.flight(to, from)?;
        flights += 1;
    }
    // The last receipt covers those before it.
    graph.last.take().map_or(Ok(()), |last| graph.items.wait(last))?;
    Ok(flights)
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args_os().skip(1);
    let dir = args.next().ok_or("usage: graph DIR FLIGHTS.csv")?;
    let csv = args.next().ok_or("usage: graph DIR FLIGHTS.csv")?;
    let mut graph = Graph::open(dir.as_ref())?;
    println!("{} airports were there", graph.by_name.len());
    let flights = load(&mut graph, csv.as_ref())?;
    println!("{flights} flights, {} records", graph.items.len());
    for (from, to) in [("ALB", "HNL"), ("EWR", "LAX")] {
        let [from, to] = [code(from)?, code(to)?].map(|name| graph.by_name.get(&name).copied());
        let way = from.zip(to).and_then(|(from, to)| graph.way(from, to)).unwrap_or_default();
        let names: Vec<_> = way.iter().map(|node| graph.name(*node)).collect();
        println!("{}", names.join(" - "));
    }
    Ok(graph.items.close()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flights_are_found_again_as_ways_after_reopening() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let csv = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/flights-sample.csv");
        let mut graph = Graph::open(dir.path()).expect("made");
        let flights = load(&mut graph, &csv).expect("loaded");
        let count = |graph: &Graph| -> u64 {
            let edges = graph.by_name.values().flat_map(|node| graph.edges(*node));
            edges.map(|edge| edge.flights.get()).sum()
        };
        assert_eq!(count(&graph), 2 * flights, "every flight is on an edge, there and back");
        let nodes = graph.by_name.clone();
        let find = |graph: &Graph| {
            let node = |name: &[u8; 4]| graph.by_name[name];
            graph.way(node(b"ALB\0"), node(b"HNL\0")).map(|way| way.len())
        };
        assert_eq!(find(&graph), Some(3), "by way of Newark");
        let items: Vec<_> = graph.items.iter().unwrap().collect();
        graph.items.close().expect("closed");
        let graph = Graph::open(dir.path()).expect("opened");
        assert_eq!((&graph.by_name, find(&graph)), (&nodes, Some(3)));
        assert_eq!(graph.items.iter().unwrap().collect::<Vec<_>>(), items);
    }
}
