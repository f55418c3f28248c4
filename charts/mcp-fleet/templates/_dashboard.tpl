{{/*
Renders a dashboard of monitoring/dashboards as the model that Grafana reads. Panels are in a grid of two columns, in the
order in which the file lists them; a panel with `wide: true` takes a whole row.
*/}}
{{- define "mcp-fleet.dashboard" -}}
{{- $y := 0 }}{{ $x := 0 }}{{ $source := dict "type" "prometheus" "uid" "${datasource}" }}
uid: {{ .uid }}
title: {{ .title | quote }}
description: {{ .description | quote }}
tags: [mcp-fleet]
schemaVersion: 38
version: 1
editable: true
refresh: 30s
time: {from: now-3h, to: now}
templating:
  list:
  - {name: datasource, label: Data source, type: datasource, query: prometheus, hide: 0}
  {{- if .tenant }}
  - name: tenant
    label: Tenant
    type: query
    datasource: {{ toJson $source }}
    query: {query: "label_values(mcp_fleet_policy_generation, tenant)", refId: tenant}
    refresh: 2
    sort: 1
    includeAll: true
    allValue: ".*"
    multi: true
    hide: 0
  {{- end }}
panels:
{{- range $index, $panel := .panels }}
{{- $wide := eq (toString $panel.wide) "true" }}
{{- if and $wide (ne $x 0) }}{{ $x = 0 }}{{ $y = add $y 8 }}{{ end }}
- id: {{ add $index 1 }}
  title: {{ $panel.title | quote }}
  type: {{ $panel.type | default "timeseries" }}
  datasource: {{ toJson $source }}
  gridPos: {"h": 8, "w": {{ ternary 24 12 $wide }}, "x": {{ $x }}, "y": {{ $y }}}
  fieldConfig: {defaults: {unit: {{ $panel.unit | default "short" }}}, overrides: []}
  options: {{ ternary (dict "showHeader" true) dict (eq (toString $panel.type) "table") | toJson }}
  {{- if eq (toString $panel.type) "table" }}
  transformations: [{id: organize, options: {excludeByName: {Time: true}}}]
  {{- end }}
  targets:
  {{- range $number, $query := $panel.queries }}
  - refId: {{ substr $number (int (add $number 1)) "ABCDEF" }}
    datasource: {{ toJson $source }}
    expr: {{ $query.expr | quote }}
    legendFormat: {{ $query.legend | default "" | quote }}
    {{- if eq (toString $panel.type) "table" }}
    format: table
    instant: true
    {{- end }}
  {{- end }}
{{- if $wide }}{{ $y = add $y 8 }}{{ else if eq $x 0 }}{{ $x = 12 }}{{ else }}{{ $x = 0 }}{{ $y = add $y 8 }}{{ end }}
{{- end }}
{{- end }}
