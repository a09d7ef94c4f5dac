// Scenarios of Node's etcd3, and so of grpc-js, against a real kvsecure server; peers.py says how
// this is called.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const { createInterface } = require("node:readline/promises");
const { status } = require("@grpc/grpc-js");
const { Etcd3, EtcdAuthenticationFailedError, EtcdPermissionDeniedError } = require("etcd3");

const MEGABYTE = 1024 * 1024;
const SCENARIO_MS_MAX = 50_000;
const PASSWORD = "walnut-Ferry-compass-5521";
const prefix = `/node/${process.argv[2]}/${process.hrtime.bigint()}/`;

// A client without a user is who its certificate says; it never has both.
function connect(username, password) {
  const credentials = { rootCertificate: readFileSync(process.env.KVSECURE_CA) };
  if (username === undefined) {
    credentials.privateKey = readFileSync(process.env.KVSECURE_KEY);
    credentials.certChain = readFileSync(process.env.KVSECURE_CERT);
  }
  return new Etcd3({
    hosts: process.env.KVSECURE_ENDPOINT.split(",").map((endpoint) => `https://${endpoint}`),
    credentials,
    auth: username === undefined ? undefined : { username, password },
    grpcOptions: { "grpc.max_receive_message_length": -1 },
  });
}

async function keys(client) {
  for (let number = 0; number < 25; number++) {
    await client.put(`${prefix}${String(number).padStart(2, "0")}`).value("v");
  }
  assert.equal(await client.get(`${prefix}03`).string(), "v");
  assert.equal(await client.getAll().prefix(prefix).count(), 25);
  const page = await client.getAll().prefix(prefix).sort("Key", "Descend").limit(10).keys();
  assert.deepEqual([page.length, page[0]], [10, `${prefix}24`]);
  assert.equal((await client.delete().prefix(prefix)).deleted, "25");
  assert.equal(await client.get(`${prefix}03`).string(), null);
}

async function transactions(client) {
  const counter = `${prefix}counter`;
  await client.put(counter).value("0");
  const increment = async () => {
    for (let done = 0; done < 10; ) {
      const found = (await client.get(counter).exec()).kvs[0];
      const next = String(Number(found.value.toString()) + 1);
      const answer = await client
        .if(counter, "Mod", "==", found.mod_revision)
        .then(client.put(counter).value(next))
        .else(client.get(counter))
        .commit();
      done += answer.succeeded ? 1 : 0;
    }
  };
  await Promise.all(Array.from({ length: 5 }, increment));
  assert.equal(await client.get(counter).number(), 50);
}

async function large(client) {
  const move = async (number) => {
    const value = Buffer.alloc(MEGABYTE, 97 + number);
    await client.put(`${prefix}${number}`).value(value);
    assert.ok(value.equals(await client.get(`${prefix}${number}`).buffer()));
  };
  await Promise.all([0, 1, 2, 3].map(move));
  await client.delete().prefix(prefix);
}

// Sees every change once and in order; then gives up the watch, and the connection goes on.
async function watch(client) {
  const count = 1_000;
  const watcher = await client.watch().prefix(prefix).create();
  const seen = [];
  const all = new Promise((resolve, reject) => {
    watcher.on("error", reject);
    watcher.on("put", (event) => seen.push(event.value.toString()) === count && resolve());
  });
  for (let number = 0; number < count; number++) {
    await client.put(`${prefix}x`).value(String(number));
  }
  await all;
  assert.deepEqual(seen, Array.from({ length: count }, (_, number) => String(number)));
  await watcher.cancel();
  await client.put(`${prefix}x`).value("unseen");
  assert.equal(await client.get(`${prefix}x`).string(), "unseen");
  assert.equal(seen.length, count);
}

// The client keeps a lease alive by itself, and lets go of it with its keys.
async function leases(client) {
  const lease = client.lease(2);
  await lease.put(`${prefix}x`).value("v");
  await once(lease, "keepaliveSucceeded");
  await new Promise((resolve) => setTimeout(resolve, 3_000));
  assert.equal(await client.get(`${prefix}x`).string(), "v");
  await lease.revoke();
  assert.equal(await client.get(`${prefix}x`).string(), null);
}

async function accounts(client) {
  const name = `node-${process.hrtime.bigint()}`;
  const role = await client.role(name).create();
  await role.grant({ permission: "Read", range: client.range({ prefix }) });
  const user = await client.user(name).create(PASSWORD);
  await user.addRole(role);
  await client.put(`${prefix}x`).value("v");
  const reader = connect(name, PASSWORD);
  assert.equal(await reader.get(`${prefix}x`).string(), "v");
  await assert.rejects(reader.put(`${prefix}x`).value("w").exec(), EtcdPermissionDeniedError);
  reader.close();
  await user.delete();
  await role.delete();
  const stranger = connect("root", "not the password of anybody");
  await assert.rejects(stranger.get(`${prefix}x`).exec(), EtcdAuthenticationFailedError);
  stranger.close();
}

async function restart(client) {
  const watcher = await client.watch().prefix(prefix).create();
  const before = once(watcher, "put");
  await client.put(`${prefix}before`).value("v");
  assert.equal((await before)[0].key.toString(), `${prefix}before`);
  const after = once(watcher, "put");
  console.log("restart");
  const lines = createInterface({ input: process.stdin });
  await once(lines, "line");
  lines.close();
  for (let served = false; !served; ) {
    try {
      await client.put(`${prefix}after`).value("v");
      served = true;
    } catch {
      // A put is not tried again by the client itself: it may have happened.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  assert.equal((await after)[0].key.toString(), `${prefix}after`);
  // An open watch would keep this program from ending.
  await watcher.cancel();
}

// Puts and gets, watches and keeps a lease, while the cluster has trouble, until it is told to end.
// It tells what was served and what failed; it fails by itself if something was lost.
async function ride(client) {
  const lease = client.lease(5);
  lease.on("lost", (error) => tell("lease", error));
  lease.on("keepaliveFailed", (error) => tell("keepalive", error));
  const leased = (await lease.put(`/leased${prefix}`).value("v").exec()).header.revision;
  const watcher = await client.watch().prefix(prefix).create();
  const watched = [];
  watcher.on("put", (event) => watched.push(Number(event.mod_revision)));
  watcher.on("error", (error) => tell("watch", error));
  watcher.on("disconnected", (error) => tell("watch", error));
  const lines = createInterface({ input: process.stdin });
  let isOver = false;
  once(lines, "line").then(() => (isOver = true));
  const acknowledged = new Map();
  const work = async (worker) => {
    for (let number = 0; !isOver; number++) {
      await new Promise((resolve) => setTimeout(resolve, 10));
      const name = `${prefix}${worker}/${String(number).padStart(6, "0")}`;
      try {
        acknowledged.set(name, (await client.put(name).value("v").exec()).header.revision);
      } catch (error) {
        tell("put", error);
        continue;
      }
      try {
        assert.equal(await client.get(name).string(), "v");
        console.log("served");
      } catch (error) {
        tell("get", error);
      }
    }
  };
  // With three of them the failures of one moment would have etcd3 leave a member alone for long.
  await Promise.all([0, 1].map(work));
  lines.close();
  const end = (await client.put(`${prefix}end`).value("v").exec()).header.revision;
  while (watched.at(-1) !== Number(end)) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const found = (await client.getAll().prefix(prefix).exec()).kvs;
  const there = new Map(found.map((kv) => [kv.key.toString(), kv.mod_revision]));
  for (const [name, revision] of acknowledged) {
    assert.equal(there.get(name), revision);
  }
  assert.deepEqual(watched, [...new Set(watched)].sort((one, other) => one - other));
  const changes = found.reduce((sum, kv) => sum + Number(kv.version), 0);
  assert.equal(watched.length, changes, "the watch has not seen every change");
  const kept = (await client.get(`/leased${prefix}`).exec()).kvs;
  assert.equal(kept[0]?.create_revision, leased, "the key is gone though its lease was kept alive");
  lease.release();
  await watcher.cancel();
}

// Prints an error on one line; etcd3 has a class for each code.
function tell(operation, error) {
  const kind = error.constructor.name.replace(/^GRPC|Error$/g, "");
  const code = typeof error.code === "number" ? status[error.code] : kind;
  console.log("error", operation, code, error.message.replaceAll("\n", " "));
}

const scenarios = { keys, transactions, large, watch, leases, accounts, restart, ride };

async function main() {
  const overdue = setTimeout(() => {
    console.error("failed: it takes too long");
    process.exit(1);
  }, SCENARIO_MS_MAX);
  const client = connect(process.env.KVSECURE_USER, process.env.KVSECURE_PASSWORD);
  await scenarios[process.argv[2]](client);
  client.close();
  clearTimeout(overdue);
  console.log("ok");
}

main().catch((error) => {
  console.error("failed:", error);
  process.exit(1);
});
