{{- define "ambit-control.podLabels" -}}
app.kubernetes.io/name: ambit-control
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: ambit
{{- end }}

{{- define "ambit-control.labels" -}}
{{ include "ambit-control.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: ambit-control-{{ .Chart.Version }}
{{- end }}

{{- define "ambit-control.image" -}}
{{- /* A number in a file of values is a float: 20261120 would become 2.026112e+07. */ -}}
{{- $tag := .Values.global.tag }}
{{- if kindIs "float64" $tag }}{{ $tag = int64 $tag }}{{ end }}
{{- .Values.image | default (printf "%s/ambit:%v" .Values.global.hub $tag) }}
{{- end }}

{{- /* What `ambit control run --mesh-config` reads; the rest of global.meshConfig are options of several parts. */ -}}
{{- define "ambit-control.meshConfig" -}}
{{- toYaml (pick .Values.global.meshConfig "serviceEntryVisibility" "accessLogFile" "accessLogFormat" "accessLogEncoding" "extensionProviders" "defaultProviders" "defaultConfig" "enableWildcardHostServiceEntriesForTls" "wildcardHostRanges") }}
{{- end }}
