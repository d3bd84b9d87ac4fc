// Prints, as JSON, what each audit says of the server at the given address: node audit.mjs URL
import { auditServer } from "graphql-http";

const results = await auditServer({ url: process.argv[2] });
console.log(JSON.stringify(results.map(({ name, status, reason = null }) => ({ name, status, reason }))));
