import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import "@graphiql/plugin-explorer/style.css";
import "./main.css";

import { explorerPlugin } from "@graphiql/plugin-explorer";
import { HISTORY_PLUGIN } from "@graphiql/plugin-history";
import { createGraphiQLFetcher, createLocalStorage } from "@graphiql/toolkit";
import { GraphiQL } from "graphiql";
import { createRoot } from "react-dom/client";

import examples from "./examples.graphql?raw";

const fetcher = createGraphiQLFetcher({ url: location.pathname, enableIncrementalDelivery: false });
const plugins = [explorerPlugin({ showAttribution: false }), HISTORY_PLUGIN];
const defaultTabs = examples.split(/\n{2,}/).map((query) => ({ query }));
// Programs at one address share its storage, and many of them serve GraphiQL at localhost:8000.
const storage = createLocalStorage({ namespace: "stockgraph" });

createRoot(document.getElementById("root")).render(
  <GraphiQL fetcher={fetcher} plugins={plugins} defaultTabs={defaultTabs} storage={storage}>
    <GraphiQL.Logo>stockgraph</GraphiQL.Logo>
  </GraphiQL>,
);
