"""The slices of the schema: types, their resolvers and the fields of the root together."""
