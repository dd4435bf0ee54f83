{{- define "ambit-node.podLabels" -}}
app.kubernetes.io/name: ambit-node
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: ambit
{{- end }}

{{- define "ambit-node.labels" -}}
{{ include "ambit-node.podLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: ambit-node-{{ .Chart.Version }}
{{- end }}

{{- define "ambit-node.image" -}}
{{ .Values.image | default (printf "%s/ambit:%v" .Values.global.hub .Values.global.tag) }}
{{- end }}
