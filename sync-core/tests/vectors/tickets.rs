//! `tickets.json`: tickets, whole and damaged.

use serde_json::{Value as Json, json};
use sync_core::model::{Grant, Invite, PeerId, Prefix, ReplicaId, Right, Ticket, TicketError};

use super::{commits::commit, *};

fn with_sum(body: &str) -> String {
    let sum = blake3::hash(body.as_bytes());
    format!("{body}&sum={}", data_encoding::HEXLOWER.encode(&sum.as_bytes()[..4]))
}

fn shown(ticket: &Ticket) -> Json {
    let addresses: Vec<&str> = ticket.addresses.iter().map(|address| address.as_str()).collect();
    let invite = ticket.invite.as_ref().map(|invite| {
        let chain: Vec<Json> = invite.chain.iter().map(|bundle| hex(encode(bundle))).collect();
        json!({ "secret": hex(invite.secret.to_bytes()), "chain": chain })
    });
    json!({
        "replica": ticket.replica.to_string(), "peer": ticket.peer.map(|peer| peer.to_string()),
        "addresses": addresses, "invite": invite,
    })
}

fn invitation() -> Ticket {
    let grant =
        Grant { subject: key(2).public(), right: Right::Write, prefix: Prefix::default(), expires: None, parent: None };
    let chain = vec![commit(1, 1, 7, vec![grant.to_op(&author(1))]).to_bundle()];
    Ticket {
        replica: ReplicaId(key(1).public()),
        peer: Some(PeerId(key(3).public())),
        addresses: vec![
            "quic://192.0.2.1:4433".parse().unwrap(),
            "https://hub.example/notes".parse().unwrap(),
            format!("iroh:{}?ip=192.0.2.1:1&relay=https://relay.example/", key(3).public()).parse().unwrap(),
        ],
        invite: Some(Invite { secret: key(2), chain }),
    }
}

fn make() -> Json {
    let whole = invitation();
    let bare = Ticket { peer: None, addresses: Vec::new(), invite: None, ..whole.clone() };
    let text = whole.to_string();
    let body = text.rsplit_once("&sum=").unwrap().0.to_owned();
    let replica = whole.replica;
    let accepted: Vec<Json> = [
        ("an invitation", text.clone()),
        ("a replica and nothing more", bare.to_string()),
        ("white space around it", format!("  {text}\n")),
        ("parameters and addresses that are not known", with_sum(&format!("{body}&colour=blue&addr=%3A%3A"))),
        ("an id in upper case", with_sum(&format!("syncline://{}?", replica.to_string().to_uppercase()))),
    ]
    .into_iter()
    .map(|(name, text)| {
        let ticket: Ticket = text.parse().unwrap();
        json!({ "name": name, "text": text, "ticket": shown(&ticket), "written": ticket.to_string() })
    })
    .collect();
    let without = |name: &str| {
        let (start, query) = body.split_once('?').unwrap();
        let kept: Vec<&str> = query.split('&').filter(|pair| !pair.starts_with(name)).collect();
        with_sum(&format!("{start}?{}", kept.join("&")))
    };
    let rejected: Vec<Json> = [
        ("nothing", String::new(), "foreign"),
        ("another URL", "https://example.org/?a=b&sum=00000000".into(), "foreign"),
        ("cut in the middle", text[..text.len() / 2].into(), "damaged"),
        ("without its last character", text[..text.len() - 1].into(), "damaged"),
        ("a changed character", text.replacen("quic", "quid", 1), "damaged"),
        ("an id that is too short", with_sum("syncline://abcd?"), "damaged"),
        ("nothing behind the id", with_sum(&format!("syncline://{replica}")), "damaged"),
        ("a peer that is none", with_sum(&format!("syncline://{replica}?peer=me")), "damaged"),
        ("no address that can be read", with_sum(&format!("syncline://{replica}?addr=%3A%3A")), "damaged"),
        ("an invite that is too short", with_sum(&format!("syncline://{replica}?invite=aaaa&grant=AA")), "damaged"),
        ("a secret without its grants", without("grant"), "damaged"),
        ("grants without their secret", without("invite"), "damaged"),
        ("too long", with_sum(&format!("{body}&x={}", "y".repeat(16 * 1024))), "damaged"),
    ]
    .into_iter()
    .map(|(name, text, error)| json!({ "name": name, "text": text, "error": error }))
    .collect();
    json!({ "accepted": accepted, "rejected": rejected })
}

#[test]
fn b59_the_vectors_of_tickets_hold() {
    let file = golden("tickets.json", &make());
    for vector in list(&file["accepted"]) {
        let ticket: Ticket = vector["text"].as_str().unwrap().parse().unwrap();
        assert_eq!(shown(&ticket), vector["ticket"], "{}", vector["name"]);
        assert_eq!(ticket.to_string(), vector["written"]);
        if let Some(invite) = &ticket.invite {
            for bundle in &invite.chain {
                bundle.clone().verify(ticket.replica, &mut Default::default()).unwrap();
            }
        }
    }
    for vector in list(&file["rejected"]) {
        let error = match vector["text"].as_str().unwrap().parse::<Ticket>() {
            Ok(_) => panic!("{} is accepted", vector["name"]),
            Err(TicketError::Foreign) => "foreign",
            Err(TicketError::Damaged(_)) => "damaged",
        };
        assert_eq!(error, vector["error"], "{}", vector["name"]);
    }
}
