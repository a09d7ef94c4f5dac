// Scenarios of Node's etcd3, and so of grpc-js, against a real kvsecure server; peers.py says how
// this is called.
"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const { readFileSync } = require("node:fs");
const { createInterface } = require("node:readline/promises");
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
    hosts: `https://${process.env.KVSECURE_ENDPOINT}`,
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

const scenarios = { keys, transactions, large, watch, leases, accounts, restart };

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
