export default {
  // The page stands at PREFIX/graphql, so what it names relative to itself is found at PREFIX/graphql/assets/.
  base: "./",
  build: {
    assetsDir: "graphql/assets",
    chunkSizeWarningLimit: 4000,
    license: { fileName: "licenses.md" },
  },
  logLevel: "error",
};
