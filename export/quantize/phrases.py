"""Short texts as people write to each other, in several languages, to calibrate on.

The docstrings and the code of a standard library have neither talk nor another language than
English, and an 8-bit form that is fitted to them alone rounds both worse.
"""

TALK = (
    "Hi there, how was your weekend?",
    "Not bad, thanks. We went to see my sister and her new baby.",
    "you never listen to me",
    "What do you mean? I am listening right now!",
    "I'm so tired of this weather, it has been raining for nine days.",
    "lol that's exactly what I thought",
    "Who is coming to dinner tonight?",
    "Just Anna and her brother. Could you buy some bread on your way home?",
    "Do you like jazz? I grew up with it, but my kids can't stand it.",
    "Sorry, I missed your call. Is everything okay?",
    "Why is the sky blue?",
    "What is the capital of Australia? Canberra, not Sydney.",
    "I love you more than words can say.",
    "That makes me really sad, and a little bit angry too.",
    "Never mind. We can talk about it tomorrow.",
    "Dear Ms. Okafor, thank you for your message of 3 May. Please find the signed contract "
    "attached. If you have any questions, do not hesitate to call me. Kind regards, Peter "
    "Lindqvist",
    "Hi all, the meeting on Thursday is moved to 14:30, room 2.17. Please bring your laptops. "
    "Best, Jo",
    "> Could you have a look at the failing build?\nSure, will do after lunch. It looks like "
    "the disk is full again.\n--\nMarta",
    "Re: your order #48213. We are sorry to tell you that the blue one is sold out until "
    "March. Would you like a refund, or shall we send you the grey one instead?",
    "To: staff@example.org Subject: parking. From Monday on, the car park behind building C is "
    "closed for repairs. Please use the one in Mill Street.",
    "<sam> anyone here who got the printer to work? <kim> have you tried turning it off and on "
    "again?",
    "My doctor says I should eat less sugar and sleep at least seven hours a night.",
    "The striker scored twice in the second half, and the crowd went wild.",
    "He told her a joke about a horse that walks into a bar; she did not laugh.",
    "How much does it cost to fly from Lagos to London in December?",
    "The senate voted against the bill on Tuesday after a long and bitter debate.",
    "I bought this kettle two months ago, and it already leaks. Do not waste your money. One star.",
    "Absolutely wonderful film! The music alone is worth the ticket.",
    "Boil the potatoes for twenty minutes, then mash them with butter, milk and a pinch of nutmeg.",
    "Once upon a time there lived a miller who had three sons and a donkey.",
    "Can a robot be happy? I am only a program, so I do not know what that would feel like.",
    "Shakespeare wrote some forty plays. Which one do you like best?",
    "Water boils at 100 degrees Celsius at sea level, and at about 70 on top of Mount Everest.",
    "where r u?? we r waiting outside",
    "Thanks a lot!!! See you soon :-)",
    "No way.",
    "Good morning",
    "I don't think so, but ask your mother.",
)

OTHER_LANGUAGES = (
    "Guten Tag, ich möchte gerne einen Tisch für vier Personen reservieren.",
    "Das Paket kann nicht installiert werden, weil eine Abhängigkeit nicht erfüllt ist. Bitte "
    "überprüfen Sie die Liste der Paketquellen und versuchen Sie es danach noch einmal.",
    "Warum fährt der Zug heute so langsam? Wegen der Bauarbeiten zwischen Würzburg und Fulda.",
    "Die Sitzung des Gemeinderates wurde wegen der Überschwemmung auf nächsten Mittwoch "
    "verschoben.",
    "Mein Großvater erzählte uns oft Geschichten aus seiner Kindheit auf dem Bauernhof.",
    "Mit dieser Einstellung legen Sie fest, welche Dateien beim Herunterfahren gesichert werden.",
    "Hast du Lust, am Samstag mit uns schwimmen zu gehen?",
    "Bonjour, pourriez-vous m'indiquer le chemin de la gare, s'il vous plaît ?",
    "Le fichier de configuration se trouve dans le répertoire personnel de l'utilisateur. Il "
    "faut le modifier avec un éditeur de texte, puis redémarrer le service.",
    "Quel temps fait-il chez vous ? Ici, il neige depuis trois jours.",
    "L'assemblée a adopté la loi après plusieurs heures de débats très animés.",
    "Je n'ai pas encore reçu ma commande, et personne ne répond au téléphone.",
    "¿Qué hora es? Son las cinco y media de la tarde.",
    "El programa permite guardar los documentos en distintos formatos y enviarlos por correo.",
    "Mañana tenemos que levantarnos temprano porque el avión sale a las siete.",
    "Me gustaría saber cuánto cuesta una habitación doble con desayuno.",
    "Non so se domani potrò venire alla festa, perché devo lavorare fino a tardi.",
    "La biblioteca comunale resterà chiusa per lavori dal primo al quindici agosto.",
    "Você pode me ajudar a encontrar o meu cachorro? Ele fugiu ontem à noite.",
    "O servidor não respondeu a tempo; verifique a sua ligação à rede.",
    "Ik heb gisteren een fiets gekocht, maar het licht doet het nu al niet meer.",
    "Jag skulle vilja ha en kopp kaffe och en smörgås med ost.",
    "Przepraszam, czy ten autobus jedzie na dworzec?",
    "Merhaba, bu hafta sinemaya gidelim mi?",
    "Selamat pagi, apa kabar? Saya baru pulang dari pasar.",
    "Здравствуйте, подскажите, пожалуйста, как пройти к музею?",
    "Программа завершила работу из-за ошибки в файле настроек.",
    "Πού είναι το πλησιέστερο φαρμακείο;",
    "今日はとても良い天気ですね。散歩に行きましょう。",
    "请问去火车站怎么走。一直往前走就到了。",
    "안녕하세요, 만나서 반갑습니다.",
    "مرحبا، كيف حالك اليوم؟",
    "नमस्ते, आप कैसे हैं?",
)
