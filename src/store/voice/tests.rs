use std::io::Write as _;

use super::*;
use crate::store::Database;
use postgres::Postgres;

#[path = "../../../tests/api/voice/postgres.rs"]
mod postgres;

fn put(table: Table, id: &str, body: &str) -> Change {
    Change {
        table,
        id: id.into(),
        body: Some(body.into()),
    }
}

/// What every database does.
async fn keeps(store: &mut VoiceStore) {
    assert_eq!(store.load().await.unwrap(), []);
    let first = put(Table::Pins, "room", "{\"a\":1}");
    let region = put(Table::Regions, "us", "{}");
    store.write(vec![first, region.clone()]).await.unwrap();
    let second = put(Table::Pins, "room", "{\"a\":\"ä'\\\"\"}");
    store.write(vec![second.clone()]).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [second, region.clone()]);
    let removed = Change {
        body: None,
        ..put(Table::Pins, "room", "")
    };
    store.write(vec![removed.clone(), removed]).await.unwrap();
    assert_eq!(store.load().await.unwrap(), [region]);
}

#[tokio::test]
async fn sqlite_keeps_what_it_is_told() {
    let database = SharedDatabase::new(Database::in_memory().unwrap());
    let mut store = VoiceStore::sqlite(database.clone()).unwrap();
    keeps(&mut store).await;
    // Opened again: the tables are there already.
    let mut again = VoiceStore::sqlite(database).unwrap();
    assert_eq!(again.load().await.unwrap().len(), 1);
}

#[tokio::test]
async fn postgresql_keeps_what_it_is_told_and_is_found_again_after_it_was_away() {
    let Some(mut server) = Postgres::start() else {
        let _ = writeln!(std::io::stderr(), "PostgreSQL is not installed: not tested");
        return;
    };
    let mut store = VoiceStore::postgres(&server.url(), "").unwrap();
    keeps(&mut store).await;
    server.stop();
    let change = put(Table::Regions, "eu", "{}");
    assert!(store.write(vec![change.clone()]).await.is_err());
    server.run();
    assert_eq!(store.load().await.unwrap().len(), 1);
    store.write(vec![change]).await.unwrap();
    assert_eq!(store.load().await.unwrap().len(), 2);
}

#[tokio::test]
async fn postgresql_is_spoken_to_under_tls_when_its_certificate_is_good() {
    let Some(server) = Postgres::start_encrypted() else {
        let _ = writeln!(std::io::stderr(), "PostgreSQL or openssl is not installed: not tested");
        return;
    };
    let url = format!("{}?sslmode=require", server.url());
    let authority = server.authority();
    let mut store = VoiceStore::postgres(&url, authority.to_str().unwrap()).unwrap();
    keeps(&mut store).await;
    let mut distrustful = VoiceStore::postgres(&url, "").unwrap();
    assert!(distrustful.load().await.is_err(), "nobody known has signed it");
    let elsewhere = url.replace("@localhost", "@127.0.0.1");
    let mut other_name = VoiceStore::postgres(&elsewhere, authority.to_str().unwrap()).unwrap();
    assert!(other_name.load().await.is_err(), "it is another server's");
    let mut clear = VoiceStore::postgres(&server.url(), "").unwrap();
    assert!(clear.load().await.is_err(), "it takes nothing else");
    assert!(VoiceStore::postgres(&url, "/nowhere.pem").is_err());
}

#[test]
fn a_bad_address_is_said_at_once() {
    assert!(VoiceStore::postgres("postgres://host:port/x", "").is_err());
}
